/**
 * libvirt, unpacked but not installed: one process with QEMU's driver, which keeps everything below
 * a directory.
 */
import { debianRelease, unpackPackages } from "../../../tools/guest/apt.ts";
import { cached } from "../../../tools/guest/cache.ts";
import { kill, spawn, withTimeout } from "../../../tools/lib/process.ts";
import { progress } from "../../../tools/guest/progress.ts";
import { ToolError } from "../../../tools/lib/tool_error.ts";

/** Time limit for a command of libvirt. */
const TIMEOUT_MS = 60_000;

const PACKAGES = ["libvirt-daemon-driver-qemu", "libvirt-clients"];

/** The directory of libvirt's files; installed packages are not in it. */
export async function libvirtPackages(): Promise<string> {
  if (Deno.uid() !== 0) throw new ToolError("libvirt in a namespace of its own needs root");
  return await cached(
    "libvirt",
    JSON.stringify([PACKAGES, await debianRelease()]),
    async (path) => {
      progress("downloading libvirt and what it needs");
      await unpackPackages(PACKAGES, path, { withDependencies: true });
    },
  );
}

/** QEMU as root, without features that a namespace lacks. */
const QEMU_CONF = `\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`;

/**
 * Runs virsh in a namespace with libvirt's user and files, whose processes end with it: $1 are the
 * packages, $2 is libvirt's directory.
 */
const START = `\
echo "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin" | cat /etc/passwd - >"$2/passwd"
printf "libvirt-qemu:x:64055:\\nkvm:x:64056:\\n" | cat /etc/group - >"$2/group"
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/group" /etc/group
if [ -d "$1/usr/share/libvirt" ]; then
  mount -t overlay overlay -o "lowerdir=$1/usr/share:/usr/share" /usr/share
  export LIBVIRT_DRIVER_DIR="$1/usr/lib/x86_64-linux-gnu/libvirt/connection-driver"
fi
export LD_LIBRARY_PATH="$1/usr/lib/x86_64-linux-gnu:$1/lib/x86_64-linux-gnu"
export PATH="$1/usr/bin:$PATH"
virsh --quiet -c "qemu:///embed?root=$2"
exit $? # The shell stays: as the first process it takes note of QEMU's end.
`;

/** A libvirt with one directory; its processes end with it. */
export class Libvirt implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #reading: Promise<void>;
  #output = "";
  #changed = Promise.withResolvers<void>();
  #commands = 0;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#writer = process.stdin.getWriter();
    this.#reading = Promise.all([this.#read(process.stdout), this.#read(process.stderr)])
      .then(() => {});
  }

  /**
   * Starts it.
   *
   * @param directory Where it keeps its files; an empty one.
   */
  static async start(directory: string): Promise<Libvirt> {
    await Deno.mkdir(`${directory}/etc`);
    await Deno.writeTextFile(`${directory}/etc/qemu.conf`, QEMU_CONF);
    return new Libvirt(spawn("unshare", [
      ...["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"],
      ...["sh", "-ec", START, "virsh", await libvirtPackages(), directory],
    ], { stdin: "piped", stdout: "piped", stderr: "piped" }));
  }

  /**
   * Runs a command of virsh.
   *
   * @returns The output of virsh and libvirt.
   * @throws {ToolError} When it fails.
   */
  async run(command: string): Promise<string> {
    const end = `end-${++this.#commands}`;
    await this.#writer.write(new TextEncoder().encode(`${command}\necho ${end}\n`));
    // The terminal echoes the input.
    const isEnd = new RegExp(`(?<!echo )${end}(?!\\d)`);
    await withTimeout(
      this.#until(() => isEnd.test(this.#output)),
      TIMEOUT_MS,
      () => `virsh ${command} has not ended: ${this.#output}`,
    );
    const output = this.#output.slice(0, this.#output.search(isEnd));
    this.#output = this.#output.slice(output.length + end.length + 1);
    if (/^error: /m.test(output)) throw new ToolError(`virsh ${command}: ${output.trim()}`);
    return output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    kill(this.#process);
    await this.#writer.close().catch(() => {});
    await this.#process.status;
    await this.#reading;
  }

  async #until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) await this.#changed.promise;
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.#output += text;
      const { resolve } = this.#changed;
      this.#changed = Promise.withResolvers();
      resolve();
    }
  }
}
