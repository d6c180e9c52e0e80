import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { isMap, LineCounter, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import { z } from 'zod';

import { SwitchError } from './errors.ts';
import { identifierRule, isIdentifier, nodeId } from './identifiers.ts';
import type { NodeId } from './identifiers.ts';
import { nearest } from './nearest.ts';

/** What nodes.yaml says; every process of the cluster reads the same file. Ports are TCP ports, times milliseconds. */
export interface Topology {
  readonly cluster: string;
  readonly sites: readonly Site[];
  readonly nodes: readonly NodeSpecification[];
  /** The fifth voter: keeps logs, no folds, no acquirer port. Absent in a cluster without one. */
  readonly witness: WitnessSpecification | undefined;
  readonly brokers: readonly BrokerSpecification[];
  readonly timings: Timings;
  readonly limits: Limits;
  readonly repair: RepairRules;
  readonly nightly: NightlyRules;
}

/** Who may change rows by `quadrant repair`. */
export interface RepairRules {
  /** Different operators who have to sign a plan before it is carried out; 1: whoever has the operator's secrets. */
  readonly approvals: number;
  readonly planHours: number;
  readonly operators: readonly Operator[];
}

export interface Operator {
  readonly id: string;
  /** Ed25519 public key: base64 of its SPKI DER, which is the middle of its PEM. */
  readonly key: string;
}

/** What `quadrant nightly` does. */
export interface NightlyRules {
  /** copies: rows that differ from what most copies or the log have are repaired. none: they are only reported. */
  readonly repair: 'none' | 'copies';
  /** Longer than this no compare goes on; what is left is inconclusive. */
  readonly budgetMinutes: number;
  /** Reports are kept so long; of older ones their records in the chain of evidence. */
  readonly keepDays: number;
}

export interface Site {
  readonly id: string;
  readonly description: string;
  /** Sites nearer first: where this site's nodes connect when their own broker is away. */
}

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

export interface NodeSpecification {
  readonly id: NodeId;
  readonly site: string;
  /** Where acquirers connect (ISO 8583 over TCP). */
  readonly acquirer: Endpoint;
  /** Where it tells monitoring of itself (HTTP); absent: nowhere. */
  readonly monitor?: Endpoint | undefined;
}

export interface WitnessSpecification {
  readonly id: NodeId;
  readonly site: string;
  readonly monitor?: Endpoint | undefined;
}

export interface BrokerSpecification {
  readonly id: string;
  readonly site: string;
  /** Where nodes and operators connect. */
  readonly client: Endpoint;
  /** Where the other brokers connect. */
  readonly cluster: Endpoint;
}

export interface Timings {
  readonly heartbeatMs: number;
  readonly electionTimeoutMs: number;
  /** How long a better-placed node must have caught up before ownership returns to it; longer when it moves often. */
  readonly failbackMs: number;
  /** How long an edge waits for an owner before it answers 91. */
  readonly requestDeadlineMs: number;
  /** A frame begun and not finished in this time closes its connection. */
  readonly partialFrameMs: number;
  /** An acquirer that does not read its answers for this time is disconnected. */
  readonly slowReaderMs: number;
  readonly brokerPingMs: number;
  readonly brokerReconnectMs: number;
}

export interface Limits {
  readonly acquirerConnections: number;
  /** Requests of one connection that are being decided; beyond it the node stops reading that connection. */
  readonly requestsInFlightPerConnection: number;
  readonly frameBytes: number;
  /** `local` answers wait for the commit beyond this many uncommitted entries, or this age of the oldest. */
  readonly localTailEntries: number;
  readonly localTailMs: number;
  /**
   * Approvals that a node may give by itself while a group has no owner, and that no log has yet: how many, and their
   * sum in minor units of each currency. 0: it gives none.
   */
  readonly standInCount: number;
  readonly standInMinor: number;
  /** Log entries that every copy of a group keeps at least; older ones are trimmed once a snapshot can replace them. */
  readonly keptLogEntries: number;
}

/** Everyone who votes: the nodes, then the witness. */
export function voters(topology: Topology): readonly NodeId[] {
  const nodes = topology.nodes.map((node) => node.id);
  return topology.witness === undefined ? nodes : [...nodes, topology.witness.id];
}

/** Names in the data folder and on the broker that a process of the cluster cannot have. */
export const reservedIds: readonly string[] = ['config', 'operator', 'auditor', 'brokers', 'secrets'];

const identifier = z.string().refine(isIdentifier, { error: `expected ${identifierRule}` });
const processIdentifier = identifier.refine((id) => !reservedIds.includes(id), {
  error: `is a reserved name (${reservedIds.join(', ')})`,
});
const needed = { error: 'at least one is needed' };
const whole = (least: number, most: number) => z.int().min(least).max(most);
const endpoint = z.strictObject({
  host: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9.:-]*$/, { error: 'expected a host name or an address' })
    .default('127.0.0.1'),
  port: whole(1, 65_535),
});

const publicKey = z
  .string()
  .transform((text) => text.replace(/-----(BEGIN|END) PUBLIC KEY-----/g, '').replace(/\s/g, ''))
  .refine(isEd25519, {
    error: 'expected the public key of an Ed25519 pair: openssl pkey -in NAME.key -pubout',
  });

function isEd25519(key: string): boolean {
  try {
    const read = createPublicKey({ key: Buffer.from(key, 'base64'), format: 'der', type: 'spki' });
    return read.asymmetricKeyType === 'ed25519';
  } catch {
    return false;
  }
}

const schema = z.strictObject({
  cluster: identifier,
  sites: z.array(z.strictObject({ id: identifier, description: z.string().default('') })).min(1, needed),
  nodes: z
    .array(
      z.strictObject({ id: processIdentifier, site: z.string(), acquirer: endpoint, monitor: endpoint.optional() }),
    )
    .min(1, needed),
  witness: z.strictObject({ id: processIdentifier, site: z.string(), monitor: endpoint.optional() }).optional(),
  brokers: z
    .array(z.strictObject({ id: identifier, site: z.string(), client: endpoint, cluster: endpoint }))
    .min(1, needed),
  timings: z
    .strictObject({
      heartbeatMs: whole(10, 10_000).default(100),
      electionTimeoutMs: whole(40, 60_000).default(600),
      failbackMs: whole(100, 3_600_000).default(2_000),
      requestDeadlineMs: whole(100, 60_000).default(3_000),
      partialFrameMs: whole(100, 3_600_000).default(30_000),
      slowReaderMs: whole(100, 3_600_000).default(30_000),
      brokerPingMs: whole(100, 60_000).default(1_000),
      brokerReconnectMs: whole(10, 60_000).default(100),
    })
    .prefault({}),
  limits: z
    .strictObject({
      acquirerConnections: whole(1, 65_535).default(4_096),
      requestsInFlightPerConnection: whole(1, 65_535).default(1_024),
      frameBytes: whole(64, 65_535).default(8_192),
      localTailEntries: whole(1, 1_000_000).default(2_000),
      localTailMs: whole(1, 60_000).default(500),
      standInCount: whole(0, 10_000).default(0),
      standInMinor: whole(0, 999_999_999_999).default(0),
      keptLogEntries: whole(1_000, 1_000_000_000).default(5_000_000),
    })
    .prefault({}),
  repair: z
    .strictObject({
      approvals: whole(1, 5).default(1),
      planHours: whole(1, 720).default(24),
      operators: z.array(z.strictObject({ id: identifier, key: publicKey })).default([]),
    })
    .prefault({}),
  nightly: z
    .strictObject({
      repair: z.enum(['none', 'copies']).default('none'),
      budgetMinutes: whole(1, 1_440).default(240),
      keepDays: whole(1, 36_500).default(90),
    })
    .prefault({}),
});

type Parsed = z.infer<typeof schema>;
type Path = readonly (string | number)[];

interface Problem {
  readonly path: Path;
  readonly what: string;
}

/**
 * Reads and checks nodes.yaml. Every problem found is in one SwitchError CONFIG_INVALID, a line each: file, line in
 * the file, path of the key, what is wrong. Nothing is ignored: a key that the schema does not know is a problem.
 */
export function loadTopology(file: string): Topology {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown reason';
    throw new SwitchError('CONFIG_INVALID', `${file} cannot be read (${why})`, { cause });
  }
  return parseTopology(text, file);
}

/** As `loadTopology`, for a text that is already in memory; `file` is for messages only. */
export function parseTopology(text: string, file: string): Topology {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const syntax = document.errors[0];
  if (syntax !== undefined) {
    const { line, col } = lines.linePos(syntax.pos[0]);
    throw new SwitchError('CONFIG_INVALID', `${file}, line ${line}, column ${col}: not valid YAML: ${syntax.message}`);
  }
  let value: unknown;
  try {
    value = document.toJS();
  } catch (cause) {
    throw new SwitchError('CONFIG_INVALID', `${file}: its aliases expand beyond any sensible size`, { cause });
  }
  const result = schema.safeParse(value);
  const problems = result.success ? contradictions(result.data) : result.error.issues.flatMap(problemsOfIssue);
  if (!result.success || problems.length > 0) {
    const described = problems.map((problem) => describeProblem(problem, file, document, lines));
    throw new SwitchError('CONFIG_INVALID', described.join('\n'));
  }
  return toTopology(result.data);
}

function toTopology(parsed: Parsed): Topology {
  return {
    ...parsed,
    nodes: parsed.nodes.map((node) => ({ ...node, id: nodeId(node.id) })),
    witness: parsed.witness === undefined ? undefined : { ...parsed.witness, id: nodeId(parsed.witness.id) },
  };
}

function problemsOfIssue(issue: z.core.$ZodIssue): Problem[] {
  const path = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step));
  if (issue.code !== 'unrecognized_keys') return [{ path, what: expectation(issue) }];
  const known = keysAt(path);
  return issue.keys.map((key) => {
    const meant = nearest(key, known);
    const advice = meant === undefined ? `known here: ${known.join(', ')}` : `did you mean "${meant}"?`;
    return { path: [...path, key], what: `unknown key; ${advice}` };
  });
}

/** Zod's words, less those that are none of a YAML file's. */
function expectation(issue: z.core.$ZodIssue): string {
  if (issue.message.endsWith('received undefined')) return 'is missing';
  return issue.message
    .replace(/^Invalid input: /, '')
    .replace('received null', 'found nothing')
    .replace('received', 'found');
}

/** The keys that the schema knows for the object at `path`. */
function keysAt(path: Path): string[] {
  let at: unknown = schema;
  for (const step of [...path, undefined]) {
    while (at instanceof z.ZodOptional || at instanceof z.ZodDefault || at instanceof z.ZodPrefault) at = at.unwrap();
    if (step === undefined) break;
    if (at instanceof z.ZodArray) at = at.element;
    else if (at instanceof z.ZodObject) at = (at.shape as Record<string, unknown>)[step];
  }
  return at instanceof z.ZodObject ? Object.keys(at.shape) : [];
}

/** What each part allows and the whole does not. */
function contradictions(parsed: Parsed): Problem[] {
  const problems: Problem[] = [];
  const sites = new Set(parsed.sites.map((site) => site.id));

  const unique = (what: string, entries: readonly { readonly path: Path; readonly key: string }[]): void => {
    const first = new Map<string, Path>();
    for (const { path, key } of entries) {
      const earlier = first.get(key);
      if (earlier === undefined) first.set(key, path);
      else problems.push({ path, what: `${what} ${key} is already that of ${pathText(earlier)}` });
    }
  };
  const atKnownSite = (path: Path, site: string): void => {
    if (sites.has(site)) return;
    const meant = nearest(site, [...sites]);
    const advice = meant === undefined ? `known: ${[...sites].join(', ')}` : `did you mean "${meant}"?`;
    problems.push({ path, what: `no site "${site}"; ${advice}` });
  };

  unique(
    'the id',
    parsed.sites.map(({ id }, index) => ({ path: ['sites', index, 'id'], key: id })),
  );
  unique(
    'the id',
    parsed.brokers.map(({ id }, index) => ({ path: ['brokers', index, 'id'], key: id })),
  );
  const { approvals, operators } = parsed.repair;
  unique(
    'the id',
    operators.map(({ id }, index) => ({ path: ['repair', 'operators', index, 'id'], key: id })),
  );
  unique(
    'the key',
    operators.map(({ key }, index) => ({ path: ['repair', 'operators', index, 'key'], key })),
  );
  if (approvals > 1 && operators.length < approvals) {
    problems.push({
      path: ['repair', 'approvals'],
      what: `${approvals} approvals are asked for, and ${operators.length} operators are named: no repair could ever be made`,
    });
  }
  unique('the id', [
    ...parsed.nodes.map(({ id }, index) => ({ path: ['nodes', index, 'id'], key: id })),
    ...(parsed.witness === undefined ? [] : [{ path: ['witness', 'id'], key: parsed.witness.id }]),
  ]);
  unique(
    'the address',
    endpoints(parsed).map(({ path, host, port }) => ({
      path,
      key: `${host === 'localhost' ? '127.0.0.1' : host}:${port}`,
    })),
  );

  parsed.nodes.forEach((node, index) => {
    atKnownSite(['nodes', index, 'site'], node.site);
  });
  if (parsed.witness !== undefined) atKnownSite(['witness', 'site'], parsed.witness.site);
  parsed.brokers.forEach((broker, index) => {
    atKnownSite(['brokers', index, 'site'], broker.site);
  });
  parsed.sites.forEach((site, index) => {
    if (!parsed.brokers.some((broker) => broker.site === site.id)) {
      problems.push({ path: ['sites', index], what: `site "${site.id}" has no broker; add one under brokers` });
    }
  });

  const { heartbeatMs, electionTimeoutMs, requestDeadlineMs } = parsed.timings;
  if (electionTimeoutMs < 4 * heartbeatMs) {
    problems.push({
      path: ['timings', 'electionTimeoutMs'],
      what: `${electionTimeoutMs} is less than four heartbeats (4 x ${heartbeatMs}): late heartbeats would move ownership`,
    });
  }
  if (requestDeadlineMs <= electionTimeoutMs) {
    problems.push({
      path: ['timings', 'requestDeadlineMs'],
      what: `${requestDeadlineMs} must be greater than electionTimeoutMs (${electionTimeoutMs}): no request would outlive a failover`,
    });
  }
  return problems;
}

/** Every address that a process of the cluster listens at, with the path of its key in nodes.yaml. */
export function endpoints(
  topology: Pick<Topology | Parsed, 'brokers' | 'nodes' | 'witness'>,
): readonly (Endpoint & { readonly path: readonly (string | number)[] })[] {
  return [
    ...topology.brokers.flatMap((broker, index) => [
      { ...broker.client, path: ['brokers', index, 'client'] },
      { ...broker.cluster, path: ['brokers', index, 'cluster'] },
    ]),
    ...topology.nodes.flatMap((node, index) => [
      { ...node.acquirer, path: ['nodes', index, 'acquirer'] },
      ...(node.monitor === undefined ? [] : [{ ...node.monitor, path: ['nodes', index, 'monitor'] }]),
    ]),
    ...(topology.witness?.monitor === undefined ? [] : [{ ...topology.witness.monitor, path: ['witness', 'monitor'] }]),
  ];
}

/** `nodes[2].acquirer.port`. */
export function pathText(path: readonly (string | number)[]): string {
  const text = path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`)).join('');
  return text.startsWith('.') ? text.slice(1) : text;
}

function describeProblem(problem: Problem, file: string, document: Document, lines: LineCounter): string {
  const line = lineOf(problem.path, document, lines);
  const where = line === undefined ? file : `${file}, line ${line}`;
  return problem.path.length === 0
    ? `${where}: ${problem.what}`
    : `${where}: ${pathText(problem.path)}: ${problem.what}`;
}

/** Line of the key at `path`, or of the nearest thing around it that stands in the file. */
function lineOf(path: Path, document: Document, lines: LineCounter): number | undefined {
  for (let length = path.length; length > 0; length--) {
    const parent: unknown = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const last = path[length - 1];
    const pair = isMap(parent) ? parent.items.find((item) => String(item.key) === last) : undefined;
    const found: unknown = pair === undefined ? document.getIn(path.slice(0, length), true) : pair.key;
    const range = found !== null && typeof found === 'object' && 'range' in found ? found.range : undefined;
    if (Array.isArray(range) && typeof range[0] === 'number') return lines.linePos(range[0]).line;
  }
  return undefined;
}
