/**
 * Reduces a record to facts that two runs of the same driver have in common, and compares them.
 *
 * @module
 */

import type { ErrorRecord, QueueRecord, RecordJson } from "../runtime/record.ts";
import type { ConfigObservation } from "../virtio/mod.ts";

/** Something that a record says: its subject, and what it says of it. */
export interface Fact {
  subject: string;
  value: string;
}

/** A fact on which two records differ; null where a record does not have it. */
export interface FactDifference {
  subject: string;
  a: string | null;
  b: string | null;
}

/** The value of a fact that has only its subject. */
const YES = "yes";

/**
 * The facts of a record: no times, processes, addresses or counters.
 *
 * @param counts Whether to add the counters.
 */
export function factsOf(record: RecordJson, counts: boolean): Fact[] {
  const { device, features, status, queues, connections, errors } = record;
  const protocol = new Set(connections.latest.flatMap(({ protocolFeatures }) => protocolFeatures));
  const facts = [
    { subject: "device", value: `${device.name} (type ${device.id})` },
    ...features.map(({ name, bit, offered, acknowledged }) => ({
      subject: `feature ${name}(${bit})`,
      value: featureValue(offered, acknowledged),
    })),
    ...[...protocol].map((name) => fact(`protocol feature ${name}`)),
    ...configFacts(record),
    ...statusFacts(status.timeline),
    ...queues.flatMap(queueFacts),
    ...errorFacts("refused", errors.latest),
    ...counts ? countFacts(record) : [],
  ];
  const bySubject = new Map(facts.map((fact) => [fact.subject, fact]));
  return [...bySubject.values()];
}

/** The facts on which two lists differ, in the order of the first, then of the second. */
export function differencesOf(a: readonly Fact[], b: readonly Fact[]): FactDifference[] {
  const [inA, inB] = [a, b].map((facts) =>
    new Map(facts.map(({ subject, value }) => [subject, value]))
  );
  const subjects = new Set([...a, ...b].map(({ subject }) => subject));
  return [...subjects]
    .map((subject) => ({ subject, a: inA.get(subject) ?? null, b: inB.get(subject) ?? null }))
    .filter(({ a, b }) => a !== b);
}

function fact(subject: string, value = YES): Fact {
  return { subject, value };
}

function featureValue(offered: boolean, acknowledged: boolean | null): string {
  if (acknowledged) return offered ? "acknowledged" : "acknowledged, not offered";
  if (!offered) return "not offered";
  return acknowledged === null ? "offered" : "left";
}

function configFacts({ config, traced }: RecordJson): Fact[] {
  const { fields, reads, writes, steps } = config;
  return [
    fact("config reads", reads.source),
    fact("config writes", writes.source),
    ...fields.map((field) => fact(`field ${field.name}`, fieldValue(field))),
    // Records of older versions have no steps
    ...(steps?.latest ?? []).map(({ field, step, bits }) =>
      fact(["step", step, ...field === null ? [] : [field], ...bits].join(" "))
    ),
    fact("trace", traced === undefined ? "none" : "attached"),
    ...traced === undefined ? [] : tracedFacts(traced),
  ];
}

/** What the driver did with a field. */
function fieldValue(field: ConfigObservation): string {
  const { reads, writes, refused, used, acknowledged } = field;
  const words = [
    ...reads > 0 ? ["read"] : [],
    ...writes > 0 ? ["written"] : [],
    ...refused > 0 ? ["refused"] : [],
    ...used ? ["marked"] : [],
    ...acknowledged ?? [],
  ];
  return words.join(" ") || "unused";
}

function tracedFacts({ config, timeline }: NonNullable<RecordJson["traced"]>): Fact[] {
  const { total, latest } = timeline;
  const isWhole = total === latest.reduce((sum, { count }) => sum + count, 0);
  return [
    ...config.map(({ access, offset, bytes, fields }) =>
      fact(`config ${access} at ${offset}, ${bytes} bytes (${fields.join(" ") || "no field"})`)
    ),
    // The beginning of a longer one is lost, at a place that differs from run to run
    ...isWhole
      ? latest.filter(({ access, register }) => access !== "event" && register !== "config").map((
        { access, register, index, bytes },
      ) => fact(`register ${access} ${[register, index ?? []].flat().join(" ")}, ${bytes} bytes`))
      : [],
  ];
}

/**
 * Each status, with the one before it when it was first seen. Each source by itself: how they
 * interleave is a matter of time.
 */
function statusFacts(timeline: RecordJson["status"]["timeline"]): Fact[] {
  const last = new Map<string, string>();
  const seen = new Set<string>();
  return timeline.flatMap(({ names, source }) => {
    const subject = `status ${names.join(" ")} (${source})`;
    const before = last.get(source);
    last.set(source, names.join(" "));
    if (seen.has(subject)) return [];
    seen.add(subject);
    return fact(subject, before === undefined ? "first" : `after ${before}`);
  });
}

function queueFacts(queue: QueueRecord): Fact[] {
  const { index, name, size, starts, requests, kicks, notifications, bytesRead } = queue;
  const some = (what: string, count: number) =>
    fact(`queue ${index} (${name}) ${what}`, count > 0 ? YES : "none");
  return [
    fact(`queue ${index} (${name}) size`, String(size)),
    some("starts", starts),
    some("requests", requests),
    some("data to the device", bytesRead),
    some("data to the driver", queue.bytesWritten),
    some("kicks", kicks),
    some("notifications", notifications),
    ...queue.tracked ? [fact(`queue ${index} (${name}) in-flight record`)] : [],
    ...errorFacts(`queue ${index} (${name}) broken by`, queue.faults),
  ];
}

/** The kinds of errors; their messages may have addresses. */
function errorFacts(what: string, errors: readonly ErrorRecord[]): Fact[] {
  return errors.map(({ rule, section }) =>
    fact(`${what} ${rule}${section === null ? "" : ` (${section})`}`)
  );
}

function countFacts({ config, queues, connections, errors }: RecordJson): Fact[] {
  const count = (subject: string, number: number) => fact(`number of ${subject}`, String(number));
  return [
    count("connections", connections.total),
    count("refused messages", errors.total),
    ...config.fields.flatMap(({ name, reads, writes }) => [
      count(`reads of ${name}`, reads),
      count(`writes of ${name}`, writes),
    ]),
    ...queues.flatMap(({ index, ...queue }) =>
      (["starts", "requests", "bytesRead", "bytesWritten", "kicks", "notifications"] as const)
        .map((name) => count(`${name} of queue ${index}`, queue[name]))
    ),
  ];
}
