/**
 * The panel of an input device: a keyboard and a touch pad that type into the guest, and LEDs.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { html, type PanelProps, send, whole } from "@vhostd/vhostd/web";
import { keyOf } from "./browser_keys.ts";

/** The part of the report that the panel shows. */
interface Report {
  kind: string;
  name: string;
  leds: Record<string, boolean>;
  events: Record<string, number>;
}

/** The largest coordinate of a tablet. */
const TABLET_MAX = 32_767;

/** Sends events in turn: those that come while others are under way go together. */
function useSender(id: string): { post(event: unknown): void; problem: string | undefined } {
  const [problem, setProblem] = useState<string>();
  const queue = useRef<unknown[]>([]);
  const isBusy = useRef(false);
  async function flush() {
    if (isBusy.current) return;
    isBusy.current = true;
    try {
      while (queue.current.length > 0) await send(id, "events", queue.current.splice(0));
      setProblem(undefined);
    } catch (error) {
      queue.current = [];
      setProblem((error as Error).message);
    }
    isBusy.current = false;
  }
  return {
    post(event) {
      queue.current.push(event);
      void flush();
    },
    problem,
  };
}

/** The panel of an input device. */
export default function InputPanel({ id, record, control }: PanelProps): VNode {
  const { kind, name, leds, events } = record.report as unknown as Report;
  const { post, problem } = useSender(id);
  const counts = Object.entries(events).filter(([, count]) => count > 0);
  return html`
    <div class="row">
      <b>${name}</b>
      ${Object.entries(leds).map(([led, isOn]) =>
        html`<span class=${isOn ? "led on" : "led"} role="status">
          ${led.replace(/^LED_/, "")}<span class="hidden"> ${isOn ? "on" : "off"}</span>
        </span>`
      )}
      ${counts.map(([what, count]) => html`<span class="faint">${whole(count)} ${what}</span>`)}
    </div>
    ${!control && html`<p class="faint">Read-only: start vhostd web with --control to type.</p>`}
    ${control &&
      (kind === "mouse" || kind === "tablet"
        ? html`<${TouchPad} kind=${kind} post=${post} />`
        : html`<${Keyboard} post=${post} />`)}
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
  ` as VNode;
}

/** A field whose keys all go to the guest, until Shift+Escape. */
function Keyboard({ post }: { post(event: unknown): void }): VNode {
  const [isOn, setOn] = useState(false);
  const held = useRef(new Set<string>());
  const place = useRef<HTMLButtonElement>(null);
  function release() {
    for (const key of held.current) post({ key, value: 0 });
    held.current.clear();
    setOn(false);
  }
  function onKey(event: KeyboardEvent) {
    if (!isOn) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.code === "Escape" && event.shiftKey) return release();
    const key = keyOf(event.code);
    if (key === undefined || event.repeat) return;
    const isDown = event.type === "keydown";
    if (isDown) held.current.add(key);
    else if (!held.current.delete(key)) return;
    post({ key, value: Number(isDown) });
  }
  return html`
    <button type="button" class=${isOn ? "pad on" : "pad"} ref=${place} aria-pressed=${isOn}
      onClick=${() => setOn(true)} onKeyDown=${onKey} onKeyUp=${onKey} onBlur=${release}>
      ${isOn ? "Keys go to the guest; Shift+Escape ends that" : "Press here to type into the guest"}
    </button>
  ` as VNode;
}

/** A surface whose pointer is the guest's; arrow keys move it too. */
function TouchPad({ kind, post }: { kind: string; post(event: unknown): void }): VNode {
  const place = useRef<HTMLDivElement>(null);
  const buttons = ["left", "middle", "right"];
  function onMove(event: PointerEvent) {
    const { clientWidth, clientHeight } = place.current!;
    if (kind === "mouse") post({ move: [event.movementX, event.movementY] });
    else {
      const scale = (at: number, size: number) =>
        Math.round(Math.min(Math.max(at / size, 0), 1) * TABLET_MAX);
      post({ position: [scale(event.offsetX, clientWidth), scale(event.offsetY, clientHeight)] });
    }
  }
  function onButton(event: PointerEvent) {
    event.preventDefault();
    place.current!.focus();
    const button = buttons[event.button];
    if (button !== undefined) post({ button, value: Number(event.type === "pointerdown") });
  }
  function onKey(event: KeyboardEvent) {
    const steps: Record<string, [number, number]> = {
      ...{ ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] },
    };
    const isClick = event.key === "Enter" || event.key === " ";
    if (steps[event.key] === undefined && !isClick) return;
    event.preventDefault();
    if (isClick) post({ button: "left" });
    else if (kind === "mouse") post({ move: steps[event.key] });
  }
  useEffect(() => {
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      post({ wheel: event.deltaY < 0 ? 1 : -1 });
    };
    place.current!.addEventListener("wheel", wheel, { passive: false });
    return () => place.current?.removeEventListener("wheel", wheel);
  }, []);
  return html`
    <div class="pad touch" tabindex="0" role="application" ref=${place}
      aria-label="Touch pad: arrow keys move, Enter clicks"
      onPointerMove=${onMove} onPointerDown=${onButton} onPointerUp=${onButton}
      onContextMenu=${(event: Event) => event.preventDefault()} onKeyDown=${onKey}>
      Touch pad
    </div>
  ` as VNode;
}
