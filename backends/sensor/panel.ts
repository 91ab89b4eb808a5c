/**
 * The panel of a sensor: a dial for each reading, which can be turned.
 *
 * @module
 */

/// <reference lib="dom" />

import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { html, type PanelProps, send } from "@vhostd/vhostd/web";

/** A reading in the report. */
interface Reading {
  name: string;
  unit: string;
  value: number;
  sequence: number;
}

/** Degrees from the least to the largest value. */
const TURN = 270;

/** The panel of a sensor. */
export default function SensorPanel({ id, record, control }: PanelProps): VNode {
  const { readings } = record.report as unknown as { readings: Reading[] };
  const [problem, setProblem] = useState<string>();
  function set(name: string, value: number, unit?: string) {
    send(id, "set", { name, value, unit }).then(
      () => setProblem(undefined),
      (error) => setProblem(error.message),
    );
  }
  return html`
    <div class="row">
      ${readings.map((reading) =>
        html`<${Dial} key=${reading.name} reading=${reading} control=${control} set=${set} />`
      )}
      ${readings.length === 0 &&
        (control
          ? html`<button type="button" onClick=${() =>
            set("dial", 0, "units")}>Add a reading</button>`
          : html`<p class="faint">No readings; start vhostd web with --control to set some</p>`)}
    </div>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
  ` as VNode;
}

/** A dial: a slider that looks like one. Its range grows with the value. */
function Dial({ reading: { name, unit, value: known }, control, set }: {
  reading: Reading;
  control: boolean;
  set(name: string, value: number): void;
}): VNode {
  /** What was turned to, until the device has it. */
  const [wanted, setWanted] = useState<number>();
  useEffect(() => {
    if (known === wanted) setWanted(undefined);
  }, [known]);
  const value = wanted ?? known;
  const [range, setRange] = useState(() => rangeOf(value));
  if (value < range[0] || value > range[1]) setRange(rangeOf(value));
  const [least, most] = range;
  function turn(value: number) {
    setWanted(value);
    set(name, value);
  }
  const angle = ((value - least) / (most - least) - 0.5) * TURN;
  return html`
    <label class="dial">
      <svg viewBox="-50 -50 100 100" aria-hidden="true">
        <circle class="track" r="42" pathLength="360" stroke-dasharray=${`${TURN} 360`}
          transform="rotate(135)" />
        <circle class="arc" r="42" pathLength="360"
          stroke-dasharray=${`${angle + TURN / 2} 360`} transform="rotate(135)" />
        <line class="hand" y1="-26" y2="-40" transform=${`rotate(${angle})`} />
        <text y="6">${value}</text>
      </svg>
      <span><b>${name}</b> <span class="faint">${unit}</span></span>
      <input type="range" min=${least} max=${most} step="1" value=${value}
        disabled=${!control}
        aria-label=${name}
        onInput=${({ currentTarget }: Event) =>
          turn((currentTarget as HTMLInputElement).valueAsNumber)}
        onBlur=${() => setWanted(undefined)} />
    </label>
  ` as VNode;
}

/** A range of round numbers that has a value. */
function rangeOf(value: number): [least: number, most: number] {
  const most = 10 ** Math.max(2, Math.ceil(Math.log10(Math.abs(value) + 1)));
  return [value < 0 ? -most : 0, most];
}
