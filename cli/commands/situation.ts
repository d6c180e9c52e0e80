import { voters as configuredVoters, type Topology } from '../../base/topology.ts';
import type { GroupStatus, ProcessStatus } from '../node/status.ts';
import {
  awayFromTheirBrokers,
  changesQueued,
  editsByShell,
  troubleWithDisk,
  versionsApart,
} from './process-findings.ts';
import { counted, groupNames, lasting, listed, note, problem, type Finding } from './wording.ts';

/** What every process answered, in the order of nodes.yaml, the witness last; undefined: it did not. */
export type ClusterAnswers = ReadonlyMap<string, ProcessStatus | undefined>;

/** One group as all the processes that answered see it together. */
export interface GroupView {
  readonly name: string;
  /** Who leads it: of those that say so, the one with the highest term. */
  readonly owner: string | undefined;
  readonly term: number;
  readonly order: readonly string[];
  readonly voters: readonly string[];
  readonly learners: readonly string[];
  readonly commit: number;
  readonly leaseMs: number | undefined;
  readonly transferring: string | undefined;
  /** The group's copy at each process that has one. */
  readonly copies: ReadonlyMap<string, GroupStatus>;
}

export function viewGroups(topology: Topology, answers: ClusterAnswers): readonly GroupView[] {
  const byName = new Map<string, Map<string, GroupStatus>>();
  for (const [id, status] of answers) {
    for (const group of status?.groups ?? []) {
      byName.set(group.name, (byName.get(group.name) ?? new Map<string, GroupStatus>()).set(id, group));
    }
  }
  return [...byName]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, copies]) => {
      const newestFirst = [...copies].sort(([, one], [, other]) => other.term - one.term);
      const [owner, atOwner] = newestFirst.find(([, { role }]) => role === 'leader') ?? [];
      // Without an owner, the longest log is the best that is known of members and order.
      const best = atOwner ?? [...copies.values()].sort(newerLogFirst)[0];
      const ordered = [best, ...copies.values()].find((copy) => copy !== undefined && copy.order.length > 0);
      return {
        name,
        owner,
        term: atOwner?.term ?? newestFirst[0]?.[1].term ?? 0,
        order: ordered?.order ?? (name === 'config' ? topology.nodes.map(({ id }) => id) : []),
        voters: best !== undefined && best.voters.length > 0 ? best.voters : configuredVoters(topology),
        learners: best?.learners ?? [],
        commit: Math.max(0, ...[...copies.values()].map(({ commit }) => commit)),
        leaseMs: atOwner?.leaseMs,
        transferring: atOwner?.transferring,
        copies,
      };
    });
}

/** Of two logs the one with the later last entry comes first: by term, then by index. */
export function newerLogFirst(one: GroupStatus, other: GroupStatus): number {
  return other.lastTerm - one.lastTerm || other.last - one.last;
}

/** Members that answer and vote. */
export function votingNow({ voters, copies }: GroupView): readonly string[] {
  return voters.filter((id) => {
    const copy = copies.get(id);
    return copy !== undefined && copy.votes && copy.failure === undefined;
  });
}

export function hasMajority(group: GroupView): boolean {
  return 2 * votingNow(group).length > group.voters.length;
}

/** Entries that a copy is behind the group's highest commit. A witness applies nothing: there it is what is on disk. */
export function behind(group: GroupView, id: string, role: ProcessStatus['role']): number {
  const copy = group.copies.get(id);
  if (copy === undefined) return group.commit;
  return Math.max(0, group.commit - (role === 'witness' ? copy.durable : copy.applied));
}

/** Nodes that stand before the owner in the group's order: it leads in their place. */
export function nodesBeforeOwner({ order, owner }: GroupView): readonly string[] {
  const place = owner === undefined ? -1 : order.indexOf(owner);
  return place === -1 ? order : order.slice(0, place);
}

/** Whether a node could lead the group as far as its own answer tells. */
export function couldLead(group: GroupView, id: string, answers: ClusterAnswers): boolean {
  return obstacle(group, id, answers) === undefined;
}

type Obstacle = 'away' | 'drained' | 'stopped' | 'rebuilt' | 'removed' | 'behind';

/** A copy with more entries to go than this is catching up; fewer are in flight under load at any moment. */
const usualLag = 1000;

function obstacle(group: GroupView, id: string, answers: ClusterAnswers): Obstacle | undefined {
  const status = answers.get(id);
  const copy = group.copies.get(id);
  if (status === undefined) return 'away';
  if (copy?.failure !== undefined) return 'stopped';
  if (copy?.votes === false) return 'rebuilt';
  if (!group.voters.includes(id)) return group.learners.includes(id) ? 'rebuilt' : 'removed';
  if (status.draining) return 'drained';
  return behind(group, id, status.role) > usualLag ? 'behind' : undefined;
}

/** What happened in the cluster, and what is left to do, in words. What it says of a node names its groups together. */
export function findings(topology: Topology, answers: ClusterAnswers): readonly Finding[] {
  const groups = viewGroups(topology, answers);
  const answered = [...answers.values()].filter((status) => status !== undefined);
  return [
    ...unreachable(answers),
    ...withoutOwner(groups.filter(({ owner }) => owner === undefined)),
    ...reasonsOfProcesses(groups, answers),
    ...answered.flatMap((status) => ofProcess(status)),
    ...lagging(groups, answers),
    ...awayFromTheirBrokers(topology, answered),
    ...versionsApart(answered),
    ...membersMissing(topology, groups, answers),
    ...displaced(topology, groups, answers),
    ...groups.flatMap(({ name, owner, transferring }) =>
      transferring === undefined ? [] : note(`${owner ?? ''} is handing group ${name} over to ${transferring}`),
    ),
  ];
}

function unreachable(answers: ClusterAnswers): Finding[] {
  const away = [...answers].flatMap(([id, status]) => (status === undefined ? [id] : []));
  if (away.length === 0) return [];
  const [does, log] = away.length === 1 ? ['does', 'its log'] : ['do', 'their logs'];
  const start = away.length === 1 ? `\`quadrant node start ${away.join('')}\`` : '`quadrant node start ID`';
  return problem(
    `${listed(away)} ${does} not answer: look at ${log} (\`quadrant tail --node ${away.join(',')}\`), and start what ` +
      `has ended (${start})`,
  );
}

/** Groups in the same plight share a sentence. */
function withoutOwner(groups: readonly GroupView[]): Finding[] {
  const sentences = new Map<string, string[]>();
  for (const group of groups) {
    const { name, voters } = group;
    const voting = votingNow(group);
    const missing = voters.filter((id) => !voting.includes(id));
    const plight = hasMajority(group)
      ? `without an owner, and ${listed(voting)} can elect one: that takes about a second`
      : `without a majority: of ${voters.length} voters only ${voting.length === 0 ? 'none' : listed(voting)} can vote, ` +
        `so their cards get 91. Bring back ${listed(missing)}; only if their disks are gone for good, ` +
        '`quadrant recover --help`';
    sentences.set(plight, [...(sentences.get(plight) ?? []), name]);
  }
  return [...sentences].flatMap(([plight, names]) =>
    problem(`${groupNames(names)} ${names.length === 1 ? 'is' : 'are'} ${plight}`),
  );
}

/** What processes complain of and is not said here from what all of them answer; a complaint of several is one line. */
function reasonsOfProcesses(groups: readonly GroupView[], answers: ClusterAnswers): Finding[] {
  const byReason = new Map<string, string[]>();
  for (const [id, status] of answers) {
    for (const reason of status?.reasons ?? []) {
      const said =
        groups.some((group) => reason.startsWith(`group ${group.name}: `) && isSaidOf(group, id, answers)) ||
        status?.mismatch?.some(({ difference }) => reason.includes(difference)) === true;
      if (!said) byReason.set(reason, [...(byReason.get(reason) ?? []), id]);
    }
  }
  return [...byReason].flatMap(([reason, ids]) => problem(`${ids.join(', ')}: ${reason}${adviceOn(reason, ids)}`));
}

/** What to do about a reason that names none itself. */
function adviceOn(reason: string, ids: readonly string[]): string {
  const at = listed(ids);
  if (/^group \S+ has stopped here/.test(reason)) {
    return (
      `. It has left the vote, the other copies go on. Where the disk of ${at} is full or read-only: mend it, and it goes on ` +
      `by itself. Otherwise copy its files for inspection, then \`quadrant node rebuild ${ids[0] ?? ''}\``
    );
  }
  if (reason.startsWith('no broker can be reached')) {
    return `. One of its connections is gone, for its answer came by another: look at the network between ${at} and the brokers`;
  }
  if (reason.startsWith('no configuration has been entered')) return ': `quadrant config load FILE`';
  return '';
}

/** Nobody leads the group, its leader is away, or this process does not vote: there is a finding of it. */
function isSaidOf({ owner, copies }: GroupView, id: string, answers: ClusterAnswers): boolean {
  const copy = copies.get(id);
  const away = copy?.leader !== undefined && answers.get(copy.leader) === undefined;
  return owner === undefined || away || copy?.votes === false;
}

function ofProcess(status: ProcessStatus): Finding[] {
  const { id, groups, draining, rebuilding, stalledMs, mismatch } = status;
  const found: Finding[] = [];
  const leads = groups.filter(({ role }) => role === 'leader').map(({ name }) => name);
  if (draining) {
    found.push(
      ...note(
        leads.length === 0
          ? `${id} is drained: it leads nothing and takes nothing over. \`quadrant undrain ${id}\` ends that`
          : `${id} is being drained and still leads ${groupNames(leads)}`,
      ),
    );
  }
  const notVoting = new Map<string, string[]>();
  for (const { name, votes, votesReason } of groups) {
    if (votes) continue;
    const reason = votesReason ?? 'it does not say why';
    notVoting.set(reason, [...(notVoting.get(reason) ?? []), name]);
  }
  const progress = rebuilding.map(({ group, percent }) => `${group} ${Math.floor(percent)} %`).join(', ');
  for (const [reason, names] of notVoting) {
    const how = progress === '' ? '' : `. Being rebuilt: ${progress}`;
    found.push(...problem(`${id} does not vote in ${groupNames(names)}: ${reason}${how}`));
  }
  if (notVoting.size === 0 && progress !== '') {
    found.push(...problem(`${id} was too far behind for the others' logs and is being rebuilt: ${progress}`));
  }
  for (const { peer, difference } of mismatch ?? []) {
    found.push(
      ...problem(`${id} refuses ${peer}: their nodes.yaml differ in ${difference}. Give both the same and restart`),
    );
  }
  if (stalledMs > 0) {
    found.push(
      ...problem(`${id}'s deciding thread has stood still for ${lasting(stalledMs)}: what it leads goes to others`),
    );
  }
  found.push(...notEntered(status));
  found.push(...troubleWithDisk(status));
  found.push(...salvaged(status));
  found.push(...editsByShell(status));
  found.push(...changesQueued(status));
  return found;
}

/** What only this node has as long as owners do not answer. */
function notEntered({ id, reversalsDue, standIn, restrictionsUndelivered }: ProcessStatus): Finding[] {
  const found: Finding[] = [];
  if (restrictionsUndelivered > 0) {
    found.push(
      ...problem(
        `${id} holds ${counted(restrictionsUndelivered, 'restriction')} of cards that no owner has entered yet: ` +
          `so far only ${id} declines for ${restrictionsUndelivered === 1 ? 'it' : 'them'}. It goes on until each is entered`,
      ),
    );
  }
  if (reversalsDue > 0) {
    found.push(
      ...note(
        `${id} has ${counted(reversalsDue, 'approval')} to take back that no acquirer received. It goes on until each ` +
          'is confirmed',
      ),
    );
  }
  if (standIn.pending > 0) {
    found.push(
      ...problem(
        `${id} approved ${counted(standIn.pending, 'request')} in stand-in that ${standIn.pending === 1 ? 'is' : 'are'} ` +
          'not entered yet. That happens by itself once the owners answer; `quadrant stand-in report` lists them',
      ),
    );
  }
  return found;
}

/** Copies that answer and vote, and are further behind than what is always on its way; one sentence for each process. */
function lagging(groups: readonly GroupView[], answers: ClusterAnswers): Finding[] {
  return [...answers].flatMap(([id, status]) => {
    if (status === undefined) return [];
    const late = groups.flatMap((group) => {
      const copy = group.copies.get(id);
      const lag = behind(group, id, status.role);
      const isSaid =
        copy === undefined || copy.failure !== undefined || !copy.votes || nodesBeforeOwner(group).includes(id);
      return isSaid || lag <= usualLag ? [] : [{ name: group.name, lag }];
    });
    if (late.length === 0) return [];
    const most = Math.max(...late.map(({ lag }) => lag));
    return note(
      `${id}'s ${late.length === 1 ? 'copy' : 'copies'} of ${groupNames(late.map(({ name }) => name))} ` +
        `${late.length === 1 ? 'is' : 'are'} up to ${counted(most, 'entry', 'entries')} behind and catching up: ask again. ` +
        `If that does not get less, look at ${id}'s disk and network`,
    );
  });
}

function salvaged({ id, groups }: ProcessStatus): Finding[] {
  const sum = (count: (salvage: GroupStatus['salvage']) => number): number =>
    groups.reduce((total, { salvage }) => total + count(salvage), 0);
  const pending = sum((salvage) => salvage.pending);
  const adopted = sum((salvage) => salvage.adopted);
  const voided = sum((salvage) => salvage.voided);
  if (pending + adopted + voided === 0) return [];
  const settled = `${adopted} adopted (they count, flagged), ${voided} void (decided or reversed elsewhere since)`;
  const all = counted(pending + adopted + voided, '`local` answer');
  if (pending === 0) {
    return note(`${id} came back with ${all} that nobody else had received; all are settled: ${settled}`);
  }
  const where = groups.filter(({ salvage }) => salvage.pending > 0).map(({ name }) => name);
  return problem(
    `${id} came back with ${all} that nobody else had received: ${settled}, ${pending} being offered to the ` +
      `owner of ${groupNames(where)}`,
  );
}

/** Processes of nodes.yaml that a group counts no more, or not yet; those with the same to do share a sentence. */
function membersMissing(topology: Topology, groups: readonly GroupView[], answers: ClusterAnswers): Finding[] {
  const sentences = new Map<string, string[]>();
  const say = (id: string, names: readonly GroupView[], what: (groups: string) => string): void => {
    if (names.length === 0) return;
    const text = what(groupNames(names.map(({ name }) => name)));
    sentences.set(text, [...(sentences.get(text) ?? []), id]);
  };
  for (const id of configuredVoters(topology)) {
    const removed = groups.filter(
      ({ owner, voters, learners }) => owner !== undefined && !voters.includes(id) && !learners.includes(id),
    );
    if (answers.get(id) !== undefined) {
      say(id, removed, (names) => `not among the members of ${names}: added again when rebuilt from the others`);
      continue;
    }
    const learning = groups.filter(({ learners }) => learners.includes(id));
    say(id, removed, (names) => `not among the members of ${names} any more: to be started with an empty folder`);
    say(id, learning, (names) => `away while being added to ${names} again: to be started`);
  }
  return [...sentences].flatMap(([text, ids]) => problem(`${listed(ids)} ${ids.length === 1 ? 'is' : 'are'} ${text}`));
}

interface Displacement {
  readonly owner: string;
  readonly groups: string[];
  /** Who stands before the owner, why it does not lead, and since when it is away. */
  readonly before: { readonly id: string; readonly why: Obstacle | undefined; awayMs: number; lag: number }[];
}

/** Groups that are not with the first node of their order; groups with the same owner and reason in one sentence. */
function displaced(topology: Topology, groups: readonly GroupView[], answers: ClusterAnswers): Finding[] {
  const found = new Map<string, Displacement>();
  const withWitness: string[] = [];
  for (const group of groups) {
    const { name, owner, copies } = group;
    if (owner === undefined) continue;
    if (topology.witness?.id === owner) {
      withWitness.push(name);
      continue;
    }
    const followers = copies.get(owner)?.followers ?? [];
    const before = nodesBeforeOwner(group).map((id) => ({
      id,
      why: obstacle(group, id, answers),
      awayMs: followers.find((follower) => follower.id === id)?.silenceMs ?? 0,
      lag: behind(group, id, 'node'),
    }));
    if (before.length === 0) continue;
    const key = [owner, ...before.map(({ id, why }) => `${id} ${why ?? ''}`)].join('|');
    const same = found.get(key);
    if (same === undefined) {
      found.set(key, { owner, groups: [name], before });
      continue;
    }
    same.groups.push(name);
    same.before.forEach((each, position) => {
      each.awayMs = Math.max(each.awayMs, before[position]?.awayMs ?? 0);
      each.lag = Math.max(each.lag, before[position]?.lag ?? 0);
    });
  }
  const sentences = [...found.values()].map((displacement): Finding => {
    const { owner, groups: names, before } = displacement;
    return {
      kind: 'displaced',
      text: `${owner} leads ${groupNames(names)} for ${inPlaceOf(before)}: ${remaining(before, names)}`,
    };
  });
  const handing = withWitness.length === 0 ? [] : [groupNames(withWitness)];
  return [
    ...sentences,
    ...handing.flatMap((names) =>
      problem(
        `the witness ${topology.witness?.id ?? ''} has the newest entries of ${names} and leads until a node has them too; ` +
          'it decides nothing, so the cards get 91 meanwhile',
      ),
    ),
  ];
}

/** `n1, which is drained`; neighbours in the order with the same state together: `n1 and n2, which are away`. */
function inPlaceOf(before: Displacement['before']): string {
  const alike: { readonly ids: string[]; readonly each: Displacement['before'][number] }[] = [];
  for (const each of before) {
    const last = alike.at(-1);
    if (last !== undefined && last.each.why === each.why && each.why !== 'behind') last.ids.push(each.id);
    else alike.push({ ids: [each.id], each });
  }
  return alike.map(({ ids, each }) => `${listed(ids)}, which ${state(each, ids.length > 1)}`).join(', and ');
}

function state({ why, awayMs, lag }: Displacement['before'][number], several: boolean): string {
  const are = several ? 'are' : 'is';
  switch (why) {
    case 'away':
      return awayMs > 0 ? `${several ? 'have' : 'has'} been away for ${lasting(awayMs)}` : `${are} away`;
    case 'drained':
      return `${are} drained`;
    case 'stopped':
      return several ? 'have stopped their copies' : 'has stopped its copy';
    case 'rebuilt':
      return `${are} being added again`;
    case 'removed':
      return several ? 'are no members' : 'is no member';
    case 'behind':
      return `is ${counted(lag, 'entry', 'entries')} behind`;
    case undefined:
      return `${are} back`;
  }
}

/** What has to happen until ownership returns to one of `before`. */
function remaining(before: Displacement['before'], groups: readonly string[]): string {
  const first = before.find(({ why }) => why === undefined) ?? before[0];
  if (first === undefined) return '';
  switch (first.why) {
    case 'away':
      return `when ${before.length === 1 ? 'it' : first.id} is back, ownership returns by itself`;
    case 'drained':
      return `\`quadrant undrain ${first.id}\` lets ownership return`;
    case 'stopped':
    case 'removed':
      return `rebuild ${first.id} from the others, then ownership returns by itself`;
    case 'rebuilt':
    case 'behind':
      return `when ${first.id} has caught up, ownership returns by itself`;
    case undefined:
      return `ownership returns by itself; \`quadrant failback ${groups.join(' ')}\` does it now`;
  }
}
