import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

import type { FaultKind } from './faults.ts';
import type { runSeed } from './run-seed.ts';

/** A defect, put into the product's own source as it is loaded: `from` becomes `to` in `file`. */
export interface Mutant {
  readonly name: string;
  /** The first seed that found it when it was last looked for; others are tried when it does not any more. */
  readonly foundBy: number;
  readonly edits: readonly Edit[];
  /** Runs of these kinds of faults alone are tried; of all kinds when not given. */
  readonly faults?: readonly FaultKind[];
}

interface Edit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const raft = 'replication/raft.ts';
const replica = 'replication/replica.ts';
const owner = 'switch/owner.ts';
const authorizer = 'switch/authorizer.ts';
const claims = 'switch/claims.ts';
const rangeMoves = 'switch/range-moves.ts';

const preVoteOff: Edit = {
  file: raft,
  from: 'if (mayAsk && nowMs >= this.#campaignAtMs) this.#ask(nowMs);',
  to: "if (mayAsk && nowMs >= this.#campaignAtMs) this.#campaign('timeout', nowMs);",
};
const checkQuorumOff: Edit = {
  file: raft,
  from: 'if (this.silenceMs(nowMs) >= this.#electionTimeoutMs) {',
  to: 'if (this.silenceMs(nowMs) < 0) {',
};

/** Each breaks one rule that the simulation must find broken. */
export const mutants: readonly Mutant[] = [
  {
    name: 'term and vote are not synced',
    foundBy: 6,
    edits: [{ file: replica, from: 'if (ready.hardState !== undefined) saveHardState(ready.hardState);', to: '' }],
  },
  {
    name: 'entries of earlier terms are committed by counting',
    foundBy: 1,
    edits: [
      {
        file: raft,
        from: 'replicated > this.#commit && this.#log.position(replicated)?.term === this.#term',
        to: 'replicated > this.#commit',
      },
    ],
  },
  {
    name: 'the previous entry is not checked',
    foundBy: 6,
    edits: [
      { file: raft, from: 'if (own?.term !== previous.term) {', to: 'if (own === undefined) {' },
      { file: raft, from: 'if (own.hash !== previous.hash) {', to: 'if (own.index < 0) {' },
    ],
  },
  {
    name: 'nobody asks before it campaigns, and leaders do not count who hears them',
    foundBy: 1,
    edits: [preVoteOff, checkQuorumOff],
  },
  { name: 'nobody asks before it campaigns', foundBy: 1, edits: [preVoteOff] },
  { name: 'leaders do not count who hears them', foundBy: 5, edits: [checkQuorumOff] },
  {
    name: 'a lease counts from when answers are heard',
    foundBy: 29,
    faults: ['leader unheard'],
    edits: [
      {
        file: raft,
        from: 'progress.answeredSentMs = Math.max(progress.answeredSentMs, message.sentMs);',
        to: 'progress.answeredSentMs = nowMs;',
      },
    ],
  },
  {
    name: 'a stored answer does not wait for its entry',
    foundBy: 2,
    edits: [
      {
        file: owner,
        from: 'this.#whenDurable(decision.index, range.durability, decision.answer, attempt, done);',
        to: "done({ kind: 'answer', answer: decision.answer });",
      },
    ],
  },
  {
    name: 'duplicates are not looked for',
    foundBy: 1,
    edits: [
      {
        file: authorizer,
        from: 'if (known !== undefined) return answerRepeat(request, card, known, context);',
        to: 'if (known?.index === -1) return answerRepeat(request, card, known, context);',
      },
    ],
  },
  {
    name: 'the owner decides without the entries after its fold',
    foundBy: 1,
    edits: [{ file: owner, from: 'applyToLedger(this.#overlay, this.#options.group, index, term, body);', to: '' }],
  },
  {
    name: 'an edge takes an answer to another attempt',
    foundBy: 2,
    edits: [
      { file: 'switch/edge.ts', from: 'if (pending?.attempt !== attempt) {', to: 'if (pending === undefined) {' },
    ],
  },
  {
    name: 'an approval is taken back when one of its attempts was not delivered',
    foundBy: 10,
    edits: [
      {
        file: claims,
        from: 'stands && attempts.every((each) => each === attempt || ledger.undeliveredAttempt(each) !== undefined);',
        to: 'stands;',
      },
    ],
  },
  {
    name: 'a disk that went back counts as the member that it was',
    foundBy: 20,
    edits: [{ file: raft, from: 'if (isNewer) {', to: 'if (isNewer && knownIncarnation < 0) {' }],
  },
  {
    name: 'a follower acknowledges before its sync',
    foundBy: 10,
    edits: [
      {
        file: raft,
        from: 'this.#reply(leader, true, Math.min(this.#matched, this.#durable), { sequence, sentMs });',
        to: 'this.#reply(leader, true, this.#matched, { sequence, sentMs });',
      },
    ],
  },
  {
    name: 'the leader counts itself before its sync',
    foundBy: 1,
    edits: [
      {
        file: raft,
        from: 'const matches = this.#ofVoters((progress) => progress.match, this.#durable);',
        to: 'const matches = this.#ofVoters((progress) => progress.match, this.#log.last.index);',
      },
      {
        file: raft,
        from: 'Math.min(matches[this.#majority() - 1] ?? 0, this.#durable)',
        to: '(matches[this.#majority() - 1] ?? 0)',
      },
      { file: raft, from: 'progress.next <= this.#durable &&', to: 'progress.next <= this.#log.last.index &&' },
      { file: raft, from: 'entry.index > this.#durable', to: 'entry.index > this.#log.last.index' },
    ],
  },
  {
    name: 'a voter votes for a log that ends before its own',
    foundBy: 12,
    edits: [
      {
        file: raft,
        from: 'const granted = message.term === this.#term && free && this.#isUpToDate(message);',
        to: 'const granted = message.term === this.#term && free;',
      },
      {
        file: raft,
        from: 'message.term > this.#term && this.#isUpToDate(message);',
        to: 'message.term > this.#term;',
      },
    ],
  },
  {
    name: 'a voter votes twice in a term',
    foundBy: 10,
    edits: [
      {
        file: raft,
        from: 'const free = this.#votedFor === undefined || this.#votedFor === from;',
        to: "const free = this.#role === 'follower';",
      },
    ],
  },
  {
    name: 'what is appended is applied before it is committed',
    foundBy: 1,
    edits: [
      {
        file: replica,
        from: 'this.#submit(appends, due ? commit : this.#applyRequested);',
        to: 'this.#submit(appends, this.#tail.last.index);',
      },
    ],
  },
  {
    name: 'a conflicting tail is not cut',
    foundBy: 6,
    edits: [{ file: raft, from: 'if (own?.term === entry.term) {', to: 'if (own !== undefined) {' }],
  },
  {
    name: 'lost batches are not sent again',
    foundBy: 1,
    edits: [
      {
        file: raft,
        from: '} else if (message.sequence >= progress.rewoundAt) {',
        to: '} else if (message.sequence < 0) {',
      },
    ],
  },
  {
    name: 'a restriction is acknowledged before it is on disk',
    foundBy: 3,
    faults: ['crash at a point'],
    edits: [
      {
        file: 'switch/claim-desk.ts',
        from: 'this.#waiting.set(restriction.id, entered);',
        to: 'kept(undefined, restriction.id);',
      },
    ],
  },
  {
    name: 'a lift lifts whatever stands',
    foundBy: 1,
    edits: [
      {
        file: 'store/cards.ts',
        from: 'before === 0 && change.restrictions.includes(id)',
        to: 'before === 0',
      },
    ],
  },
  {
    name: 'a version that is past is replaced all the same',
    foundBy: 3,
    edits: [
      {
        file: 'switch/card-changes.ts',
        from: 'if (request.replaces !== card.version) throw',
        to: 'if (request.replaces > card.version) throw',
      },
    ],
  },
  {
    name: 'a row of the configuration is replaced whatever its version',
    foundBy: 3,
    edits: [
      {
        file: 'config-db/configuration-change.ts',
        from: 'if ((present?.version ?? absent) === replaces) return [];',
        to: 'if (replaces >= absent) return [];',
      },
    ],
  },
  {
    name: 'a change that is brought again is entered again',
    foundBy: 2,
    edits: [
      {
        file: 'cli/node/configuration-desk.ts',
        from: "if (known !== undefined) return { kind: 'entered', index: known } as const;",
        to: "if (known === -1) return { kind: 'entered', index: known } as const;",
      },
    ],
  },
  {
    name: 'what was edited before the process started is put back and forgotten',
    foundBy: 2,
    edits: [
      {
        file: 'config-db/shell-guard.ts',
        from: 'if (verdict !== undefined) {',
        to: 'if (verdict !== undefined && !first) {',
      },
    ],
  },
  {
    name: 'what a log loses is not kept',
    foundBy: 6,
    edits: [{ file: replica, from: 'if (removed.length > 0) salvage(removed);', to: '' }],
  },
  {
    name: 'the heir decides before it has copied',
    foundBy: 2,
    edits: [
      {
        file: rangeMoves,
        from: "return row !== undefined && row.endIndex > 0 && isSettled ? 'here' : 'coming';",
        to: "return row !== undefined ? 'here' : 'coming';",
      },
    ],
  },
  {
    name: 'the old group decides on while its range leaves',
    foundBy: 2,
    edits: [
      {
        file: rangeMoves,
        from: 'if (move !== undefined && log.stateOf(move.move_id).row !== undefined) return move.to_group;',
        to: '',
      },
    ],
  },
  {
    name: 'claims for a card that has left are settled where it was',
    foundBy: 2,
    faults: ['leader unheard', 'bad network', 'brokers away'],
    edits: [{ file: owner, from: "if (leftBy === '') return null;", to: "if (leftBy !== 'none') return null;" }],
  },
];

const root = new URL('../../', import.meta.url).href;

/** Module graphs that carry `?mutant=N` in their addresses get that mutant's edits; installed once. */
let installed = false;
function install(): void {
  if (installed) return;
  installed = true;
  registerHooks({
    resolve(specifier, context, next) {
      const result = next(specifier, context);
      const mutant = /\?mutant=\d+$/.exec(context.parentURL ?? '')?.[0];
      const isOurs = result.url.startsWith(root) && !result.url.includes('/node_modules/');
      return mutant === undefined || !isOurs || result.url.includes('?')
        ? result
        : { ...result, url: result.url + mutant };
    },
    load(url, context, next) {
      const result = next(url, context);
      const mutant = mutants[Number(/\?mutant=(\d+)$/.exec(url)?.[1] ?? -1)];
      const edits = mutant?.edits.filter(({ file }) => url.startsWith(`${root}${file}?`)) ?? [];
      if (edits.length === 0) return result;
      let source = readFileSync(new URL(url), 'utf8');
      for (const { from, to, file } of edits) {
        assert.equal(
          source.split(from).length,
          2,
          `${file} has "${from}" once: the mutant "${mutant?.name ?? ''}" is out of date`,
        );
        source = source.replace(from, () => to);
      }
      return { ...result, source };
    },
  });
}

interface Simulation {
  readonly runSeed: typeof runSeed;
}

/** The simulation with the mutant's defect in it. */
export async function loadMutant(mutant: Mutant): Promise<Simulation> {
  install();
  return (await import(`./run-seed.ts?mutant=${mutants.indexOf(mutant)}`)) as Simulation;
}
