/** The files of the guest's small userland. */
import { unpackPackages } from "./apt.ts";
import { cached, exists } from "./cache.ts";
import { run } from "../lib/process.ts";

/** Text files by their path in the guest; scripts start with `#!`. */
export type FileTree = Record<string, string>;

/** The system that the guest runs, from the root disk or the initramfs. */
export const SYSTEM: FileTree = {
  "etc/hostname": "guest\n",
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
  "etc/group": "root:x:0:\n",
  // Read by busybox's init.
  "etc/inittab": `\
::sysinit:/etc/init.d/rcS
ttyS0::once:/etc/init.d/console
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
::shutdown:/bin/umount -a -r
`,
  "etc/init.d/rcS": `\
#!/bin/sh
hostname -F /etc/hostname
# The initramfs has mounted these, if there was one.
[ -e /proc/self ] || mount -t proc proc /proc
[ -e /sys/bus ] || mount -t sysfs sys /sys
[ -c /dev/null ] || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /run
mount -t tmpfs tmp /tmp
grep -qw vhostd.dhcp /proc/cmdline && /etc/init.d/network
`,
  // IPv6 addresses come by themselves.
  "etc/init.d/network": `\
#!/bin/sh
ip link set lo up
for path in /sys/class/net/eth*; do
  name=\${path##*/}
  ip link set "$name" up
  udhcpc -n -i "$name" -t 3 -T 1 -A 1 -O mtu -s /etc/udhcpc.script >/dev/null 2>&1 &
done
wait
`,
  "etc/udhcpc.script": `\
#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
[ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
ip addr flush dev "$interface" scope global
ip addr add "$ip/$mask" dev "$interface"
for address in $router; do
  [ "$mask" = 32 ] && ip route add "$address" dev "$interface"
  ip route replace default via "$address" dev "$interface"
done
for address in $dns; do echo "nameserver $address"; done >/etc/resolv.conf
[ -n "$domain$search" ] && echo "search \${search:-$domain}" >>/etc/resolv.conf
exit 0
`,
  // Leaving the shell ends the guest: there is nothing else in it.
  "etc/init.d/console": `\
#!/bin/sh
cd /root
sh -l
poweroff
`,
  "etc/profile": `\
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PS1='guest:\\w# '
echo "Linux $(uname -r), whose virtio devices are TypeScript:"
for device in /sys/bus/virtio/devices/*; do
  driver=$(readlink "$device/driver") && echo "  \${device##*/}  \${driver##*/}"
done
ip -4 addr show scope global | sed -n 's|^ *inet \\([^ /]*\\).* \\(.*\\)$|\\2 has \\1|p'
ip route | sed -n 's|^default via \\([^ ]*\\).*|\\1 leads to the host and beyond|p'
sed -n 's|^nameserver \\(.*\\)|\\1 resolves names|p' /etc/resolv.conf 2>/dev/null
echo "poweroff (or exit, or Ctrl-A X) ends this guest."
`,
};

/** Directories that something is mounted on, or that the system expects. */
const DIRECTORIES = [
  ...["bin", "dev", "mnt", "proc", "root", "run", "sbin", "sys", "tmp"],
  ...["usr/bin", "usr/sbin", "var"],
];

/** Writes the files into the guest's `/`, with busybox under all of its names. */
export async function writeTree(directory: string, tree: FileTree, busybox: string): Promise<void> {
  for (const name of DIRECTORIES) await Deno.mkdir(`${directory}/${name}`, { recursive: true });
  for (const [name, text] of Object.entries(tree)) {
    const path = `${directory}/${name}`;
    await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(path, text);
    await Deno.chmod(path, text.startsWith("#!") ? 0o755 : 0o644);
  }
  await Deno.copyFile(busybox, `${directory}/bin/busybox`);
  // Full names: bin/ls, sbin/init, usr/bin/awk.
  const names = await run(busybox, ["--list-full"]);
  for (const name of names.trim().split("\n")) {
    if (name === "bin/busybox") continue;
    await Deno.symlink("/bin/busybox", `${directory}/${name}`);
  }
}

/** The path of a busybox that needs no libraries. */
export async function busybox(): Promise<string> {
  const directory = await cached(
    "busybox",
    "busybox-static",
    (path) => unpackPackages(["busybox-static"], path),
  );
  // From Debian 13 on.
  const merged = `${directory}/usr/bin/busybox`;
  return await exists(merged) ? merged : `${directory}/bin/busybox`;
}
