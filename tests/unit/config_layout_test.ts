import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import {
  array,
  bytes,
  type Field,
  struct,
  text,
  u16,
  u32,
  u64,
  u8,
} from "../../src/virtio/config/fields.ts";
import { type ConfigLayout, packed } from "../../src/virtio/config/layout.ts";

function offsets(layout: ConfigLayout): Record<string, number> {
  return Object.fromEntries(layout.fields.map(({ name, offset }) => [name, offset]));
}

// The expected numbers are offsetof() and sizeof() of gcc 12 for x86-64 over
// QEMU 10.0.2's include/standard-headers/linux, which are Linux's own headers.

const blk = packed({
  capacity: u64("Capacity in sectors of 512 bytes"),
  size_max: u32("Largest segment in bytes", { feature: "SIZE_MAX" }),
  seg_max: u32("Most segments of a request", { feature: "SEG_MAX" }),
  geometry: struct(
    { cylinders: u16("Cylinders"), heads: u8("Heads"), sectors: u8("Sectors per track") },
    "Legacy geometry",
    { feature: "GEOMETRY" },
  ),
  blk_size: u32("Block size in bytes", { feature: "BLK_SIZE" }),
  topology: struct(
    {
      physical_block_exp: u8("Logical blocks per physical block, as a power of 2"),
      alignment_offset: u8("Offset of the first aligned logical block"),
      min_io_size: u16("Smallest good I/O in logical blocks"),
      opt_io_size: u32("Best I/O in logical blocks"),
    },
    "Topology",
    { feature: "TOPOLOGY" },
  ),
  writeback: u8("1: write-back cache", { feature: "CONFIG_WCE", access: "rw" }),
  unused0: u8("Unused"),
  num_queues: u16("Number of queues", { feature: "MQ" }),
  max_discard_sectors: u32("Sectors per discard", { feature: "DISCARD" }),
  max_discard_seg: u32("Segments per discard", { feature: "DISCARD" }),
  discard_sector_alignment: u32("Alignment in sectors", { feature: "DISCARD" }),
  max_write_zeroes_sectors: u32("Sectors per write-zeroes", { feature: "WRITE_ZEROES" }),
  max_write_zeroes_seg: u32("Segments per write-zeroes", { feature: "WRITE_ZEROES" }),
  write_zeroes_may_unmap: u8("1: may unmap", { feature: "WRITE_ZEROES" }),
  unused1: bytes(3, "Unused"),
  max_secure_erase_sectors: u32("Sectors per erase", { feature: "SECURE_ERASE" }),
  max_secure_erase_seg: u32("Segments per erase", { feature: "SECURE_ERASE" }),
  secure_erase_sector_alignment: u32("Alignment in sectors", { feature: "SECURE_ERASE" }),
  zoned: struct(
    {
      zone_sectors: u32("Sectors per zone"),
      max_open_zones: u32("Most open zones"),
      max_active_zones: u32("Most active zones"),
      max_append_sectors: u32("Most sectors per append"),
      write_granularity: u32("Write granularity in bytes"),
      model: u8("0: none, 1: host managed, 2: host aware"),
      unused2: bytes(3, "Unused"),
    },
    "Zones",
    { feature: "ZONED" },
  ),
});

Deno.test("packed() lays out blk when compared to struct virtio_blk_config", () => {
  assertEquals(blk.size, 96);
  assertEquals(offsets(blk), {
    capacity: 0,
    size_max: 8,
    seg_max: 12,
    "geometry.cylinders": 16,
    "geometry.heads": 18,
    "geometry.sectors": 19,
    blk_size: 20,
    "topology.physical_block_exp": 24,
    "topology.alignment_offset": 25,
    "topology.min_io_size": 26,
    "topology.opt_io_size": 28,
    writeback: 32, // wce
    unused0: 33,
    num_queues: 34,
    max_discard_sectors: 36,
    max_discard_seg: 40,
    discard_sector_alignment: 44,
    max_write_zeroes_sectors: 48,
    max_write_zeroes_seg: 52,
    write_zeroes_may_unmap: 56,
    unused1: 57,
    max_secure_erase_sectors: 60,
    max_secure_erase_seg: 64,
    secure_erase_sector_alignment: 68,
    "zoned.zone_sectors": 72,
    "zoned.max_open_zones": 76,
    "zoned.max_active_zones": 80,
    "zoned.max_append_sectors": 84,
    "zoned.write_granularity": 88,
    "zoned.model": 92,
    "zoned.unused2": 93,
  });
});

// One declaration and the offsets of its header's struct, in order
const HEADERS: [string, ConfigLayout, number, number[]][] = [
  [
    "virtio_input_config",
    packed({
      select: u8("", { access: "rw" }),
      subsel: u8("", { access: "rw" }),
      size: u8(""),
      reserved: bytes(5, ""),
      u: bytes(128, ""),
    }),
    136,
    [0, 1, 2, 3, 8],
  ],
  [
    "virtio_net_config",
    packed({
      mac: bytes(6, ""),
      status: u16(""),
      max_virtqueue_pairs: u16(""),
      mtu: u16(""),
      speed: u32(""),
      duplex: u8(""),
      rss_max_key_size: u8(""),
      rss_max_indirection_table_length: u16(""),
      supported_hash_types: u32(""),
    }),
    24,
    [0, 6, 8, 10, 12, 16, 17, 18, 20],
  ],
  [
    "virtio_scsi_config",
    packed({
      num_queues: u32(""),
      seg_max: u32(""),
      max_sectors: u32(""),
      cmd_per_lun: u32(""),
      event_info_size: u32(""),
      sense_size: u32("", { access: "rw" }),
      cdb_size: u32("", { access: "rw" }),
      max_channel: u16(""),
      max_target: u16(""),
      max_lun: u32(""),
    }),
    36,
    [0, 4, 8, 12, 16, 20, 24, 28, 30, 32],
  ],
  [
    "virtio_fs_config",
    packed({
      tag: text(36, ""),
      num_request_queues: u32(""),
    }),
    40,
    [0, 36],
  ],
  ["virtio_vsock_config", packed({ guest_cid: u64("") }), 8, [0]],
  [
    "virtio_console_config",
    packed({
      cols: u16(""),
      rows: u16(""),
      max_nr_ports: u32(""),
      emerg_wr: u32("", { access: "rw" }),
    }),
    12,
    [0, 2, 4, 8],
  ],
  [
    "virtio_gpio_config",
    packed({
      ngpio: u16(""),
      padding: bytes(2, ""),
      gpio_names_size: u32(""),
    }),
    8,
    [0, 2, 4],
  ],
  [
    "virtio_snd_config",
    packed({
      jacks: u32(""),
      streams: u32(""),
      chmaps: u32(""),
      controls: u32(""),
    }),
    16,
    [0, 4, 8, 12],
  ],
  [
    "virtio_gpu_config",
    packed({
      events_read: u32(""),
      events_clear: u32("", { access: "rw" }),
      num_scanouts: u32(""),
      num_capsets: u32(""),
    }),
    16,
    [0, 4, 8, 12],
  ],
  [
    "virtio_crypto_config",
    packed({
      status: u32(""),
      max_dataqueues: u32(""),
      crypto_services: u32(""),
      cipher_algo: array(u32(""), 2, ""), // cipher_algo_l, cipher_algo_h
      hash_algo: u32(""),
      mac_algo: array(u32(""), 2, ""), // mac_algo_l, mac_algo_h
      aead_algo: u32(""),
      max_cipher_key_len: u32(""),
      max_auth_key_len: u32(""),
      akcipher_algo: u32(""),
      max_size: u64(""),
    }),
    56,
    [0, 4, 8, 12, 20, 24, 32, 36, 40, 44, 48],
  ],
  [
    "virtio_iommu_config",
    packed({
      page_size_mask: u64(""),
      input_range: struct({ start: u64(""), end: u64("") }, ""),
      domain_range: struct({ start: u32(""), end: u32("") }, ""),
      probe_size: u32(""),
      bypass: u8("", { access: "rw" }),
      reserved: bytes(3, ""),
    }),
    40,
    [0, 8, 16, 24, 28, 32, 36, 37],
  ],
  [
    "virtio_mem_config",
    packed({
      block_size: u64(""),
      node_id: u16(""),
      padding: bytes(6, ""),
      addr: u64(""),
      region_size: u64(""),
      usable_region_size: u64(""),
      plugged_size: u64(""),
      requested_size: u64(""),
    }),
    56,
    [0, 8, 10, 16, 24, 32, 40, 48],
  ],
];

for (const [header, layout, size, expected] of HEADERS) {
  Deno.test(`packed() gives the header's offsets when compared to struct ${header}`, () => {
    assertEquals(layout.size, size);
    assertEquals(Object.values(offsets(layout)), expected);
  });
}

Deno.test("packed() gives an empty space when no field is declared (rng)", () => {
  const rng = packed({});
  assertEquals(rng.size, 0);
  assertEquals(rng.fields, []);
  assertEquals(Object.keys(rng.view(new ArrayBuffer(0))), []);
});

Deno.test("packed() describes a field with type, access, feature and meaning", () => {
  assertEquals(blk.fields.find(({ name }) => name === "writeback"), {
    name: "writeback",
    offset: 32,
    size: 1,
    type: "u8",
    access: "rw",
    feature: "CONFIG_WCE",
    about: "1: write-back cache",
  });
  assertEquals(blk.fields.find(({ name }) => name === "geometry.heads"), {
    name: "geometry.heads",
    offset: 18,
    size: 1,
    type: "u8",
    access: "ro",
    feature: "GEOMETRY",
    about: "Heads",
    group: "Legacy geometry",
  });
});

Deno.test("packed() lets a member's options come before its group's", () => {
  const layout = packed({
    group: struct(
      { own: u8("", { feature: "OWN", access: "ro" }), inherits: u8("") },
      "Group",
      { feature: "GROUP", access: "rw" },
    ),
    list: array(u16("", { access: "rw" }), 2, "", { feature: "LIST" }),
  });
  assertEquals(layout.fields.map(({ feature, access }) => [feature, access]), [
    ["OWN", "ro"],
    ["GROUP", "rw"],
    ["LIST", "rw"],
  ]);
});

Deno.test("packed() gives one flat field when the array is of numbers, else one per element", () => {
  const layout = packed({
    levels: array(u16(""), 3, ""),
    names: array(text(4, ""), 2, ""),
    sensors: array(struct({ low: u8(""), high: u8("") }, ""), 2, ""),
    grid: array(array(u8(""), 2, ""), 2, ""),
  });
  assertEquals(layout.fields.map(({ name, offset, type }) => [name, offset, type]), [
    ["levels", 0, "u16[3]"],
    ["names[0]", 6, "text"],
    ["names[1]", 10, "text"],
    ["sensors[0].low", 14, "u8"],
    ["sensors[0].high", 15, "u8"],
    ["sensors[1].low", 16, "u8"],
    ["sensors[1].high", 17, "u8"],
    ["grid[0]", 18, "u8[2]"],
    ["grid[1]", 20, "u8[2]"],
  ]);
});

const all = packed({
  byte: u8(""),
  word: u16(""),
  long: u32(""),
  quad: u64(""),
  raw: bytes(3, ""),
  tag: text(4, ""),
  levels: array(u16(""), 2, ""),
  sensors: array(struct({ low: u8(""), name: text(2, "") }, ""), 2, ""),
  group: struct({ inner: struct({ deep: u16("") }, "") }, ""),
});

for (const Memory of [ArrayBuffer, SharedArrayBuffer]) {
  Deno.test(`packed().view() stores little-endian values when the memory is ${Memory.name}`, () => {
    const buffer = new Memory(all.size);
    const view = all.view(buffer);
    view.byte = 0x01;
    view.word = 0x0302;
    view.long = 0x07060504;
    view.quad = 0x0f0e0d0c0b0a0908n;
    view.raw = Uint8Array.of(0x10, 0x11);
    view.tag = "né";
    view.levels[1] = 0xabcd;
    view.sensors[1].low = 9;
    view.sensors[1].name = "ab";
    view.group.inner.deep = 0xfffe;
    assertEquals(
      [...new Uint8Array(buffer)],
      [
        ...Array.from({ length: 15 }, (_, i) => i + 1),
        ...[0x10, 0x11, 0],
        ...[0x6e, 0xc3, 0xa9, 0],
        ...[0, 0, 0xcd, 0xab],
        ...[0, 0, 0, 9, 0x61, 0x62],
        ...[0xfe, 0xff],
      ],
    );
    assertEquals(view.byte, 0x01);
    assertEquals(view.word, 0x0302);
    assertEquals(view.long, 0x07060504);
    assertEquals(view.quad, 0x0f0e0d0c0b0a0908n);
    assertEquals([...view.raw], [0x10, 0x11, 0]);
    assertEquals(view.tag, "né");
    assertEquals([...view.levels], [0, 0xabcd]);
    assertEquals(view.levels.length, 2);
    assertEquals(view.sensors[1].name, "ab");
    assertEquals(view.group.inner.deep, 0xfffe);
  });
}

Deno.test("packed().view() is live when the memory or another view changes", () => {
  const buffer = new SharedArrayBuffer(all.size);
  const view = all.view(buffer);
  const other = all.view(buffer);
  other.long = 7;
  other.raw[1] = 8;
  new Uint8Array(buffer)[0] = 9;
  assertEquals([view.long, view.raw[1], view.byte], [7, 8, 9]);
});

Deno.test("packed().view() gives completions and types for every field", () => {
  const view = all.view(new ArrayBuffer(all.size));
  const quad: bigint = view.quad;
  const deep: number = view.group.inner.deep;
  const first: number = view.sensors[0].low;
  assertEquals([quad, deep, first], [0n, 0, 0]);
  // @ts-expect-error: a u64 is a bigint
  assertThrows(() => view.quad = 1, RangeError);
  // @ts-expect-error: a group is not replaced
  assertThrows(() => view.group = {}, TypeError);
  // @ts-expect-error: nor is an element that is a group
  assertThrows(() => view.sensors[0] = {}, TypeError);
  // @ts-expect-error: not declared
  assertThrows(() => view.missing = 1, TypeError);
});

const REFUSED: [string, (view: ReturnType<typeof all.view>) => unknown, string][] = [
  ["a u8 above its range", (view) => view.byte = 256, "byte to 256: expected an integer from 0"],
  ["a u16 below its range", (view) => view.word = -1, "word to -1"],
  ["a fraction", (view) => view.long = 1.5, "long to 1.5"],
  ["not a number", (view) => view.long = NaN, "long to NaN"],
  ["a u64 above its range", (view) => view.quad = 1n << 64n, "expected a bigint"],
  ["a u64 below its range", (view) => view.quad = -1n, "quad to -1"],
  ["too many bytes", (view) => view.raw = new Uint8Array(4), "raw to 4 bytes: it holds 3"],
  ["a text too long in UTF-8", (view) => view.tag = "äöü", "tag to 6 bytes: it holds 4"],
  ["an element out of range", (view) => view.levels[1] = 65536, "levels[1] to 65536"],
  ["a nested value out of range", (view) => view.group.inner.deep = 65536, "group.inner.deep"],
  ["an index outside", (view) => view.levels[2] = 1, ""],
];

for (const [what, set, message] of REFUSED) {
  Deno.test(`packed().view() refuses ${what} and changes nothing`, () => {
    const buffer = new ArrayBuffer(all.size);
    const view = all.view(buffer);
    assertThrows(() => set(view), Error, message);
    assert(new Uint8Array(buffer).every((byte) => byte === 0));
  });
}

Deno.test("packed().view() refuses a buffer that is too small", () => {
  assertThrows(() => all.view(new ArrayBuffer(all.size - 1)), RangeError, "in a buffer of");
});

Deno.test("packed().view() accepts a text that fills its field without a NUL", () => {
  const view = all.view(new ArrayBuffer(all.size));
  view.tag = "root";
  assertEquals(view.tag, "root");
  view.tag = "";
  assertEquals(view.tag, "");
});

Deno.test("packed().assign() sets what is given and leaves the rest", () => {
  const buffer = new SharedArrayBuffer(all.size);
  const view = all.view(buffer);
  view.byte = 5;
  view.sensors[0].name = "x";
  all.assign(buffer, { quad: 8n, raw: [1, 2, 3], word: undefined });
  all.assign(view, {
    levels: [4],
    sensors: [{ low: 6 }],
    group: { inner: { deep: 7 } },
    tag: "t",
  });
  assertEquals(
    [view.byte, view.quad, view.tag, view.levels[0], view.group.inner.deep],
    [5, 8n, "t", 4, 7],
  );
  assertEquals([...view.raw], [1, 2, 3]);
  assertEquals([view.sensors[0].low, view.sensors[0].name], [6, "x"]);
});

Deno.test("packed().assign() refuses what is not declared or does not fit", () => {
  const buffer = new ArrayBuffer(all.size);
  // @ts-expect-error: not declared
  assertThrows(() => all.assign(buffer, { missing: 1 }), TypeError, "missing: it is not declared");
  // @ts-expect-error: not declared, and not to be found on Object.prototype
  assertThrows(() => all.assign(buffer, { group: { constructor: 1 } }), TypeError, "group.constr");
  assertThrows(() => all.assign(buffer, { levels: [1, 2, 3] }), RangeError, "levels to 3 elements");
  assertThrows(() => all.assign(buffer, { sensors: [{ low: 256 }] }), RangeError, "sensors[0].low");
});

Deno.test("packed() refuses invalid sizes and names", () => {
  assertEquals(packed({ u: bytes(256, "") }).size, 256);
  assertThrows(() => packed({ u: bytes(256, ""), more: u8("") }), RangeError, "of 257 bytes");
  assertThrows(() => bytes(0, ""), RangeError, "bytes of 0");
  assertThrows(() => bytes(257, ""), RangeError, "bytes of 257");
  assertThrows(() => text(1.5, ""), RangeError, "text of 1.5");
  assertThrows(() => array(u8(""), -1, ""), RangeError, "an array of -1");
  for (const name of ["", "a.b", "0", "a b", "a["]) {
    assertThrows(() => packed({ [name]: u8("") }), TypeError, "expected an identifier");
    assertThrows(() => struct({ [name]: u8("") }, ""), TypeError, "expected an identifier");
  }
});

const anyField = fc.letrec<{ field: Field }>((tie) => ({
  field: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom<Field>(u8(""), u16(""), u32(""), u64("")),
    fc.integer({ min: 1, max: 9 }).map((length): Field => bytes(length, "")),
    fc.integer({ min: 1, max: 9 }).map((length): Field => text(length, "")),
    fc.tuple(tie("field"), fc.integer({ min: 1, max: 3 })).map(([element, count]): Field =>
      array(element, count, "")
    ),
    fc.array(tie("field"), { minLength: 1, maxLength: 4 }).map((fields): Field =>
      struct(Object.fromEntries(fields.map((field, i) => [`f${i}`, field])), "")
    ),
  ),
})).field;

Deno.test("packed() covers every byte once and in order when fields are random", () => {
  fc.assert(fc.property(fc.array(anyField, { maxLength: 6 }), (fields) => {
    const size = fields.reduce((sum, field) => sum + field.size, 0);
    fc.pre(size <= 256);
    const layout = packed(Object.fromEntries(fields.map((field, i) => [`f${i}`, field])));
    let end = 0;
    for (const { offset, size } of layout.fields) {
      assertEquals(offset, end);
      end = offset + size;
    }
    assertEquals([end, layout.size, layout.bytes.length], [size, size, size]);
    assertEquals(new Set(layout.fields.map(({ name }) => name)).size, layout.fields.length);
  }));
});

Deno.test("packed().view() returns the values that were set, for random values", () => {
  fc.assert(fc.property(
    fc.integer({ min: 0, max: 0xff }),
    fc.integer({ min: 0, max: 0xffff }),
    fc.integer({ min: 0, max: 0xffffffff }),
    fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    fc.uint8Array({ minLength: 3, maxLength: 3 }),
    fc.stringMatching(/^[ -~]{0,4}$/),
    (byte, word, long, quad, raw, tag) => {
      const view = all.view(new SharedArrayBuffer(all.size));
      all.assign(view, { byte, word, long, quad, raw, tag });
      assertEquals([view.byte, view.word, view.long, view.quad, view.tag], [
        byte,
        word,
        long,
        quad,
        tag,
      ]);
      assertEquals([...view.raw], [...raw]);
    },
  ));
});
