/** A real Debian on a disk image. */
import { debianRelease } from "../../../tools/guest/apt.ts";
import { cached } from "../../../tools/guest/cache.ts";
import { run } from "../../../tools/lib/process.ts";
import { programPath } from "../../../tools/guest/programs.ts";
import { makeExt4 } from "../../../tools/guest/root_image.ts";
import { progress } from "../../../tools/guest/progress.ts";
import { ToolError } from "../../../tools/lib/tool_error.ts";

/** The script that makes the image; only the release is determined elsewhere. */
const RECIPE = {
  sizeMiB: 1024,
  // minbase has no init; without udev no console is ever ready for a login.
  packages: ["systemd-sysv", "udev"],
  files: {
    "etc/hostname": "debian\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    // A root shell on the console, as in all our guests.
    "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf": `\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --keep-baud 115200 %I vt220
`,
  },
  // The guest does not use them, and they are half of the tree.
  removed: [
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
  ],
} as const;

/**
 * Returns the path of an image with Debian and systemd, of this machine's release. Makes it if it is
 * missing, which takes a minute or two. Copy it before writing.
 *
 * @throws {ToolError} When it is missing and this is not root.
 */
export async function debianImage(): Promise<string> {
  const suite = await debianRelease();
  return await cached("debian", JSON.stringify([suite, RECIPE]), async (path) => {
    if (Deno.uid() !== 0) {
      throw new ToolError("Only root can make a Debian image (debootstrap)");
    }
    progress(`making an image of Debian ${suite}, which takes a while`);
    const directory = await Deno.makeTempDir({ prefix: "vhostd-debian-" });
    try {
      await run(await programPath("debootstrap"), [
        "--variant=minbase",
        `--include=${RECIPE.packages.join()}`,
        suite,
        directory,
      ]);
      for (const name of RECIPE.removed) {
        await Deno.remove(`${directory}/${name}`, { recursive: true });
      }
      for (const [name, text] of Object.entries(RECIPE.files)) {
        const file = `${directory}/${name}`;
        await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
        await Deno.writeTextFile(file, text);
      }
      await makeExt4(directory, path, RECIPE.sizeMiB);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}
