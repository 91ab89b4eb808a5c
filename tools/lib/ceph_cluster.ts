/**
 * A real Ceph cluster, for tests and benchmarks: a monitor and a store in memory in a network
 * namespace, from Debian's packages, without installing them; for root.
 */
import { cephDirectory, cephEnvironment } from "../guest/programs.ts";
import { NetworkNamespace } from "./network_namespace.ts";
import { kill, withTimeout } from "./process.ts";
import { Scratch } from "./scratch.ts";

const COMMAND = new URL("ceph_command.ts", import.meta.url).pathname;

/** How long the store may take to end, in milliseconds: it saves what it has. */
const END_LIMIT_MS = 60_000;

/** The users, and what they may do. */
const USERS: Record<string, Record<string, string>> = {
  "mon.": { mon: "allow *" },
  "client.admin": { mon: "allow *", osd: "allow *" },
  "client.guest": { mon: "profile rbd", osd: "profile rbd pool=rbd" },
  "osd.0": { mon: "allow profile osd", osd: "allow *" },
};

/** A cluster with one pool, `rbd`. It ends with the block. */
export class CephCluster implements AsyncDisposable {
  readonly #namespace: NetworkNamespace;
  readonly #environment: readonly string[];
  readonly #directory: string;
  #osd: Deno.ChildProcess | undefined;

  private constructor(namespace: NetworkNamespace, directory: string, environment: string[]) {
    this.#namespace = namespace;
    this.#directory = directory;
    this.#environment = [...environment, `CEPH_CONF=${this.conf}`];
  }

  /** Starts one, in about three seconds. */
  static async start(): Promise<CephCluster> {
    await using resources = new AsyncDisposableStack();
    const directory = resources.use(new Scratch("vhostd-ceph-")).directory();
    const namespace = resources.use(await NetworkNamespace.create());
    const cluster = new CephCluster(namespace, directory, await cephEnvironment());
    await cluster.#make(await cephDirectory());
    cluster.startOsd();
    await cluster.command({ prefix: "osd pool create", pool: "rbd", pg_num: 8 });
    cluster.#resources = resources.move();
    return cluster;
  }

  #resources = new AsyncDisposableStack();

  /** A command that runs another one where the cluster and its libraries are. */
  get through(): string[] {
    return [...this.#namespace.through, "env", ...this.#environment];
  }

  /** The path of the cluster's configuration. */
  get conf(): string {
    return this.path("ceph.conf");
  }

  /** A path in the cluster's directory. */
  path(name: string): string {
    return `${this.#directory}/${name}`;
  }

  async #make(tree: string): Promise<void> {
    await Deno.writeTextFile(this.conf, configuration(this.#directory, tree));
    await Deno.writeTextFile(this.path("keyring"), keyring());
    for (const name of ["mon", "osd"]) await Deno.mkdir(this.path(name));
    await this.run("monmaptool --create --fsid $FSID --addv a v2:127.0.0.1:3300 monmap");
    await this.run("osdmaptool --createsimple 1 osdmap");
    await Promise.all([
      this.run("ceph-mon -i a --mkfs --monmap monmap --osdmap osdmap --keyring keyring"),
      this.run(
        "ceph-osd -i 0 --mkfs --no-mon-config --osd-uuid 11111111-2222-4333-8444-555555555555",
      ),
    ]);
    this.#start("ceph-mon -i a -f");
  }

  #start(command: string): Deno.ChildProcess {
    const name = command.split(" ")[0];
    return this.#namespace.start(
      `cd ${this.#directory}; exec env ${this.#environment.join(" ")} ${command} >${name}.out 2>&1`,
    );
  }

  /** Starts the store again. */
  startOsd(): void {
    this.#osd = this.#start("ceph-osd -i 0 -f");
  }

  /** Ends the store, which keeps its data. */
  async stopOsd(): Promise<void> {
    kill(this.#osd!, "SIGTERM");
    await withTimeout(this.#osd!.status, END_LIMIT_MS, () => "ceph-osd did not end");
  }

  /** Runs a shell's script with Ceph's programs in the PATH; returns what it printed. */
  async run(script: string): Promise<string> {
    const environment = [`FSID=${FSID}`, ...this.#environment].join(" ");
    return await this.#namespace.run(
      `cd ${this.#directory}; export ${environment}; ${script}`,
    );
  }

  /** Sends commands to the monitor; returns its answer. */
  async command(...commands: Record<string, unknown>[]): Promise<string> {
    const words = commands.map((command) => `'${JSON.stringify(command)}'`).join(" ");
    return await this.run(`${Deno.execPath()} run -A --quiet ${COMMAND} ${this.conf} ${words}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}

const FSID = "3c3d7b6e-0b4f-4b0e-9d0e-4a3a4c0c0e01";

function configuration(directory: string, tree: string): string {
  const libraries = `${tree}/usr/lib/x86_64-linux-gnu`;
  return `\
[global]
fsid = ${FSID}
mon_host = v2:127.0.0.1:3300
mon_initial_members = a
keyring = ${directory}/keyring
run_dir = ${directory}
admin_socket =
pid_file =
log_file = ${directory}/$name.log
erasure_code_dir = ${libraries}/ceph/erasure-code
plugin_dir = ${libraries}/ceph
osd_class_dir = ${libraries}/rados-classes
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
# One machine, with nothing to wait for
mon_client_hunt_interval = 0.2
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
mon_tick_interval = 1
[mon]
mon_data = ${directory}/mon
mon_data_avail_crit = 0
mon_data_avail_warn = 0
[osd]
osd_data = ${directory}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
# A short write copies no whole object
memstore_page_set = true
memstore_page_size = 4096
# Ends by saving
osd_fast_shutdown = false
# A client that was killed keeps its lock so many seconds
osd_client_watch_timeout = 3
[client]
# Tells often enough that it lives
objecter_tick_interval = 0.5
log_file =
`;
}

/** Everybody's new key. */
function keyring(): string {
  return Object.entries(USERS).map(([user, caps]) => {
    const may = Object.entries(caps).map(([service, cap]) => ` caps ${service} = "${cap}"\n`);
    return `[${user}]\n key = ${newKey()}\n${may.join("")}`;
  }).join("");
}

/** A new key of cephx: type AES, time of making, length and bytes. */
export function newKey(): string {
  const bytes = new Uint8Array(28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 1, true);
  view.setUint32(2, Date.now() / 1000, true);
  view.setUint16(10, 16, true);
  crypto.getRandomValues(bytes.subarray(12));
  return bytes.toBase64();
}
