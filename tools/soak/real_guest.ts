/**
 * A real Linux guest on devices of ours: it reboots, is reset, stopped and killed, and so are its
 * disks.
 */
import { programImage } from "../guest/program_image.ts";
import { Guest } from "../guest/guest.ts";
import type { Random } from "../lib/random.ts";
import { type Actor, sleep, Tally, type World } from "./actor.ts";
import { LastingBackend } from "./backend.ts";
import {
  FIO_CHECKED_BYTES,
  FIO_MOUNT,
  FIO_REQUESTS,
  GUEST_DISK_BYTES,
  GuestDisk,
  REGION_BYTES,
  REQUESTS_PER_REGION,
} from "./guest_disk.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How long the guest may take to a shell, and for a round of writes. */
const TIMEOUT_MS = 120_000;

/** How soon QEMU tries to connect again. */
const RECONNECT_MS = 20;

/** How many regions of each disk are written at a time. */
const WRITES_PER_ROUND = 2;

/** A disk is killed so soon after a round began, at the most. */
const MAX_KILL_DELAY_MS = 400;

/** How long QEMU is stopped at the most. */
const MAX_STOP_MS = 2000;

/** How many bytes of randomness the guest asks for in each round. */
const RANDOM_BYTES = 512;

/** How long the guest writes before it is interrupted, at the most. */
const MAX_INTERRUPT_MS = 300;

/** A struct input_event of a 64-bit Linux. */
const EVENT_BYTES = 24;
/** How many keys are typed at a time. */
const KEYS = 10;

const QUEUES = 2;
const GROWN_BYTES = GUEST_DISK_BYTES + 2 ** 20;

/** What happens between two rounds of writes. */
const EVENTS = [
  "guest rebooted",
  "guest reset while it writes",
  "QEMU killed while it writes",
  "QEMU stopped and continued",
  "guest's disk resized",
  "guest's driver bound anew",
] as const;

/** What happens in the midst of a round: QEMU's and our records of requests in flight are needed. */
const KILL = "guest's disk kill -9";

/** The two parts of a driver's life. */
const DRIVER = "/sys/bus/virtio/drivers/virtio_blk";

export class RealGuest implements Actor {
  readonly tally = new Tally("guest");
  readonly #random: Random;
  readonly #made = new AsyncDisposableStack();
  readonly #backends: LastingBackend[] = [];
  readonly #disks: GuestDisk[] = [];
  readonly #randomness = new Set<string>();
  #tools!: LastingBackend;
  #rng!: LastingBackend;
  #keyboard!: LastingBackend;
  #guest!: Guest;

  constructor(readonly world: World, readonly directories: readonly string[]) {
    this.#random = world.random("guest");
  }

  async start(): Promise<void> {
    for (const [at, directory] of this.directories.entries()) {
      const device = deviceOf(at);
      const path = `${directory}/guest-${device}.img`;
      // With all of its room, since the file system is full at times.
      await Deno.writeFile(path, new Uint8Array(GUEST_DISK_BYTES));
      const flags = [`--blk-file=${path}`, `--num-queues=${QUEUES}`];
      const backend = await this.#serve(`guest-${device}`, "blk", flags);
      const random = this.world.random(`guest ${device}`);
      this.#disks.push(new GuestDisk(device, backend, path, random.u32(), random));
    }
    this.#tools = await this.#serve("guest-tools", "blk", [
      `--blk-file=${await programImage("fio")}`,
      "--read-only",
      "--num-queues=1",
    ]);
    this.#rng = await this.#serve("guest-rng", "rng", []);
    this.#keyboard = await this.#serve("guest-input", "input", ["--profile=keyboard"]);
    await this.#boot();
  }

  async run(): Promise<void> {
    const failures = this.#backends.map((backend) => backend.failed);
    await Promise.race([this.#rounds(), ...failures]);
    await this.#guest.powerOff();
    for (const backend of this.#backends) await backend.end("SIGTERM");
    for (const disk of this.#disks) this.tally.checkedBytes += await disk.checkAll();
  }

  /** The guest's name of the disk behind the others. */
  get #toolsDevice(): string {
    return deviceOf(this.#disks.length);
  }

  async #serve(name: string, device: string, flags: readonly string[]): Promise<LastingBackend> {
    const backend = this.#made.use(new LastingBackend(this.world, name, device, flags));
    await backend.start();
    this.#backends.push(backend);
    return backend;
  }

  async #boot(): Promise<void> {
    this.#guest = await Guest.boot({
      cpus: QUEUES,
      bootTimeoutMs: TIMEOUT_MS,
      devices: [
        ...this.#disks.map(({ backend: { socketPath } }, at) => ({
          kind: "blk",
          socketPath,
          reconnectMs: RECONNECT_MS,
          qemuProperties: { "num-queues": QUEUES, packed: at % 2 === 1 },
        })),
        { kind: "blk", socketPath: this.#tools.socketPath, qemuProperties: { "num-queues": 1 } },
        { kind: "rng", socketPath: this.#rng.socketPath },
        { kind: "input", socketPath: this.#keyboard.socketPath },
      ],
    });
  }

  async #rounds(): Promise<void> {
    const canKill = await this.#recordsInflight();
    for (let round = 0; !this.world.over.aborted; round++) {
      const isKill = canKill && this.#random.chance(1, 3);
      await Promise.all([this.#write(), ...isKill ? [this.#killDisk()] : []]);
      await this.#askForRandomness();
      if (round % 8 === 0) await this.#type();
      if (this.#random.chance(1, 3)) await this.#happen(this.#random.pick(EVENTS));
    }
  }

  /** Whether a back-end that is killed can know again what was in flight. */
  async #recordsInflight(): Promise<boolean> {
    const { connections } = await this.#disks[0].backend.now.record();
    return connections.latest.at(-1)!.protocolFeatures.includes("INFLIGHT_SHMFD");
  }

  /** Runs a command in the guest; it has to succeed. */
  async #run(command: string): Promise<string> {
    const { status, output } = await this.#guest.run(command, { timeoutMs: TIMEOUT_MS });
    if (status === 0) return output.trimEnd();
    throw new ToolError(
      `The guest failed with status ${status}: ${output.trimEnd()}\n  command: ${command}`,
    );
  }

  /** Writes regions of all disks at once, and compares them in the guest and in the file. */
  async #write(): Promise<void> {
    const writes = this.#disks.flatMap((disk) =>
      disk.choose(WRITES_PER_ROUND).map((write) => ({ disk, write }))
    );
    const jobs = [
      ...this.#disks.map((disk) => disk.fio()),
      ...writes.map(({ disk, write }) => disk.writingAndReading(write)),
    ];
    await this.#run(
      `[ -x ${FIO_MOUNT}/fio ] || ` +
        `{ mkdir -p ${FIO_MOUNT}; mount -o ro -t ext4 /dev/${this.#toolsDevice} ${FIO_MOUNT}; }\n` +
        jobs.map((job) => `${job} & jobs="$jobs $!"`).join("\n") +
        "\nfor job in $jobs; do wait $job || exit 1; done",
    );
    this.tally.requests += this.#disks.length * FIO_REQUESTS;
    this.tally.checkedBytes += this.#disks.length * FIO_CHECKED_BYTES;
    for (const { disk, write } of writes) {
      this.tally.requests += 2 * REQUESTS_PER_REGION;
      this.tally.checkedBytes += REGION_BYTES + await disk.wrote(write);
    }
  }

  /** Begins to write, and ends whatever it is by `interrupt`. */
  async #interrupt(interrupt: () => Promise<void>): Promise<void> {
    const writes = this.#disks.map((disk) => ({ disk, write: disk.choose(1)[0] }));
    await this.#run(writes.map(({ disk, write }) => `{ ${disk.writing(write)}; } &`).join("\n"));
    await sleep(this.#random.below(MAX_INTERRUPT_MS), this.world.over);
    await interrupt();
    for (const { disk, write } of writes) this.tally.checkedBytes += await disk.mayHaveWrote(write);
    // They are neither, so they are written whole before anything else.
    await this.#run(writes.map(({ disk, write }) => disk.writingAndReading(write)).join(" && "));
    for (const { disk, write } of writes) this.tally.checkedBytes += await disk.wrote(write);
  }

  async #killDisk(): Promise<void> {
    await sleep(this.#random.below(MAX_KILL_DELAY_MS), this.world.over);
    const { backend } = this.#random.pick(this.#disks);
    this.world.fault(this.tally, KILL);
    const begun = performance.now();
    await backend.end("SIGKILL");
    await backend.start();
    this.tally.pausesMs.push(performance.now() - begun);
  }

  async #happen(event: typeof EVENTS[number]): Promise<void> {
    this.world.fault(this.tally, event);
    const guest = this.#guest;
    switch (event) {
      case "guest rebooted":
        return await guest.reboot();
      case "guest reset while it writes":
        return await this.#interrupt(() => guest.reset());
      case "QEMU killed while it writes":
        return await this.#interrupt(async () => {
          await guest[Symbol.asyncDispose]();
          await this.#boot();
        });
      case "QEMU stopped and continued":
        Deno.kill(guest.pid, "SIGSTOP");
        await sleep(this.#random.below(MAX_STOP_MS), this.world.over);
        return Deno.kill(guest.pid, "SIGCONT");
      case "guest's disk resized": {
        const disk = this.#random.pick(this.#disks);
        await this.#resize(disk, GROWN_BYTES);
        return await this.#resize(disk, GUEST_DISK_BYTES);
      }
      case "guest's driver bound anew":
        for (const { device } of this.#disks) {
          await this.#run(
            `name=$(basename $(readlink -f /sys/block/${device}/device)); ` +
              `echo $name >${DRIVER}/unbind && echo $name >${DRIVER}/bind && ` +
              `[ -b /dev/${device} ]`,
          );
        }
    }
  }

  async #resize({ device, path, backend }: GuestDisk, bytes: number): Promise<void> {
    await Deno.truncate(path, bytes);
    await backend.now.post("resize", null);
    const size = `/sys/block/${device}/size`;
    await this.#run(
      `timeout 60 sh -c 'until [ "$(cat ${size})" = ${bytes / 512} ]; do usleep 50000; done'`,
    );
  }

  async #askForRandomness(): Promise<void> {
    const hash = await this.#run(`head -c ${RANDOM_BYTES} /dev/hwrng | sha256sum`);
    if (this.#randomness.has(hash)) throw new ToolError("The guest had the same bytes twice");
    this.#randomness.add(hash);
    this.tally.checkedBytes += RANDOM_BYTES;
  }

  /** Types on the keyboard, and expects that the guest has it. */
  async #type(): Promise<void> {
    const count = 4 * KEYS;
    await this.#run(
      "rm -f /tmp/keys; mkfifo /tmp/keys; exec 3</dev/input/event0; " +
        `dd bs=${EVENT_BYTES} count=${count} <&3 >/tmp/keys 2>/dev/null &`,
    );
    await this.#keyboard.now.post("events", { text: "a".repeat(KEYS) });
    const bytes = await this.#run("timeout 60 cat /tmp/keys | wc -c");
    if (Number(bytes) === count * EVENT_BYTES) return;
    throw new ToolError(`The guest has ${bytes} bytes of ${count} events`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest?.[Symbol.asyncDispose]();
    await this.#made.disposeAsync();
  }
}

/** The guest's name of a disk, by its place among them. */
function deviceOf(at: number): string {
  return `vd${"abcdefgh"[at]}`;
}
