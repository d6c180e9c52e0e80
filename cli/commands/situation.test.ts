import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Finding } from './wording.ts';
import { findings } from './situation.ts';
import { answersOf, topology } from './testing.ts';

type Situation = Parameters<typeof answersOf>[0];

const lostMajority = { n3: 5000, n4: 5000, w1: 5000 };
const nobody = { a: undefined, b: undefined, config: undefined };
const oldDisk = 'its disk is older than what its peers remember: it is being added again';

/** What is said in each situation, whole. */
const table: readonly (readonly [
  claim: string,
  situation: Situation,
  said: readonly (readonly [Finding['kind'], string])[],
])[] = [
  ['nothing is said of a cluster in which everything is in its place', {}, []],
  [
    'a node that is away is named, with who leads in its place and that ownership returns by itself',
    { away: { n1: 12_300 }, owners: { a: 'n2', config: 'n2' } },
    [
      [
        'problem',
        'n1 does not answer: look at its log (`quadrant tail --node n1`), and start what has ended (`quadrant node start n1`)',
      ],
      [
        'displaced',
        'n2 leads groups a and config for n1, which has been away for 12 s: when it is back, ownership returns by itself',
      ],
    ],
  ],
  [
    'when two nodes of an order cannot lead, it says of each why',
    { away: { n1: 200_000 }, owners: { a: 'n3', b: 'n4', config: 'n3' }, processes: { n2: { draining: true } } },
    [
      [
        'problem',
        'n1 does not answer: look at its log (`quadrant tail --node n1`), and start what has ended (`quadrant node start n1`)',
      ],
      ['note', 'n2 is drained: it leads nothing and takes nothing over. `quadrant undrain n2` ends that'],
      [
        'displaced',
        'n3 leads groups a and config for n1, which has been away for 3 min, and n2, which is drained: when n1 is back, ' +
          'ownership returns by itself',
      ],
      [
        'displaced',
        'n4 leads group b for n2, which is drained, and n1, which has been away for 3 min: `quadrant undrain n2` lets ' +
          'ownership return',
      ],
    ],
  ],
  [
    'neighbours in the order that are away are named together',
    { away: { n1: 5000, n2: 5000 }, owners: { a: 'n3', b: 'n4', config: 'n3' } },
    [
      [
        'problem',
        'n1 and n2 do not answer: look at their logs (`quadrant tail --node n1,n2`), and start what has ended (`quadrant node start ID`)',
      ],
      [
        'displaced',
        'n3 leads groups a and config for n1 and n2, which have been away for 5 s: when n1 is back, ownership returns ' +
          'by itself',
      ],
      [
        'displaced',
        'n4 leads group b for n2 and n1, which have been away for 5 s: when n2 is back, ownership returns by itself',
      ],
    ],
  ],
  [
    'a node that is back gets its groups by itself, or by command',
    { owners: { a: 'n2' } },
    [
      [
        'displaced',
        'n2 leads group a for n1, which is back: ownership returns by itself; `quadrant failback a` does it now',
      ],
    ],
  ],
  [
    'a node that is back and far behind has to catch up first',
    {
      owners: { a: 'n2' },
      copies: {
        n1: { a: { applied: 5, commit: 5 } },
        n2: { a: { commit: 5005, applied: 5005 } },
        n3: { a: { applied: 5005 } },
        n4: { a: { applied: 5005 } },
        w1: { a: { durable: 5005 } },
      },
    },
    [
      [
        'displaced',
        'n2 leads group a for n1, which is 5000 entries behind: when n1 has caught up, ownership returns by itself',
      ],
    ],
  ],
  [
    'a node with an old disk is being rebuilt, and how far it is',
    {
      owners: { a: 'n2', config: 'n2' },
      copies: {
        n1: { a: { votes: false, votesReason: oldDisk }, config: { votes: false, votesReason: oldDisk } },
      },
      processes: { n1: { rebuilding: [{ group: 'a', percent: 40.9 }] } },
    },
    [
      ['problem', `n1 does not vote in groups a and config: ${oldDisk}. Being rebuilt: a 40 %`],
      [
        'displaced',
        'n2 leads groups a and config for n1, which is being added again: when n1 has caught up, ownership returns ' +
          'by itself',
      ],
    ],
  ],
  [
    'a node that is too far behind for the logs is being rebuilt',
    { processes: { n4: { rebuilding: [{ group: 'a', percent: 12 }] } } },
    [['problem', "n4 was too far behind for the others' logs and is being rebuilt: a 12 %"]],
  ],
  [
    'a group without an owner and with a majority is electing',
    { owners: { a: undefined } },
    [['problem', 'group a is without an owner, and n1, n2, n3, n4 and w1 can elect one: that takes about a second']],
  ],
  [
    'a lost majority says who is missing, and that recovering is for lost disks only',
    { away: lostMajority, owners: { b: undefined, a: undefined, config: undefined } },
    [
      [
        'problem',
        'n3, n4 and w1 do not answer: look at their logs (`quadrant tail --node n3,n4,w1`), and start what has ended (`quadrant node start ID`)',
      ],
      [
        'problem',
        'groups a, b and config are without a majority: of 5 voters only n1 and n2 can vote, so their cards get 91. ' +
          'Bring back n3, n4 and w1; only if their disks are gone for good, `quadrant recover --help`',
      ],
    ],
  ],
  [
    'a member that answers and does not vote does not count for a majority',
    {
      away: { n4: 1, w1: 1 },
      owners: { ...nobody, b: 'n2', config: 'n1' },
      copies: { n3: { a: { votes: false, votesReason: oldDisk } } },
    },
    [
      [
        'problem',
        'n4 and w1 do not answer: look at their logs (`quadrant tail --node n4,w1`), and start what has ended (`quadrant node start ID`)',
      ],
      [
        'problem',
        'group a is without a majority: of 5 voters only n1 and n2 can vote, so their cards get 91. Bring back ' +
          'n3, n4 and w1; only if their disks are gone for good, `quadrant recover --help`',
      ],
      ['problem', `n3 does not vote in group a: ${oldDisk}`],
    ],
  ],
  [
    'members that were given up are named until they are back',
    {
      away: { n3: 1 },
      copies: Object.fromEntries(['n1', 'n2', 'n4', 'w1'].map((id) => [id, { a: { voters: ['n1', 'n2'] } }])),
    },
    [
      [
        'problem',
        'n3 does not answer: look at its log (`quadrant tail --node n3`), and start what has ended (`quadrant node start n3`)',
      ],
      ['problem', 'n3 is not among the members of group a any more: to be started with an empty folder'],
      ['problem', 'n4 and w1 are not among the members of group a: added again when rebuilt from the others'],
    ],
  ],
  [
    'a learner that went away is to be started',
    { away: { n4: 1 }, copies: { n1: { a: { voters: ['n1', 'n2', 'n3', 'w1'], learners: ['n4'] } } } },
    [
      [
        'problem',
        'n4 does not answer: look at its log (`quadrant tail --node n4`), and start what has ended (`quadrant node start n4`)',
      ],
      ['problem', 'n4 is away while being added to group a again: to be started'],
    ],
  ],
  [
    'a witness that leads says that cards get 91 meanwhile',
    { owners: { a: 'w1' } },
    [
      [
        'problem',
        'the witness w1 has the newest entries of group a and leads until a node has them too; it decides nothing, ' +
          'so the cards get 91 meanwhile',
      ],
    ],
  ],
  [
    'answers that nobody received are offered, and then settled',
    {
      copies: {
        n1: { a: { salvage: { pending: 2, adopted: 10, voided: 1 } } },
        n2: { a: { salvage: { pending: 0, adopted: 1, voided: 0 } } },
      },
    },
    [
      [
        'problem',
        'n1 came back with 13 `local` answers that nobody else had received: 10 adopted (they count, flagged), 1 void ' +
          '(decided or reversed elsewhere since), 2 being offered to the owner of group a',
      ],
      [
        'note',
        'n2 came back with 1 `local` answer that nobody else had received; all are settled: 1 adopted (they count, ' +
          'flagged), 0 void (decided or reversed elsewhere since)',
      ],
    ],
  ],
  [
    'what an edge still has to do is said: reversals due and stand-in approvals',
    { processes: { n3: { reversalsDue: 3, standIn: { pending: 1, entered: 4 } } } },
    [
      ['note', 'n3 has 3 approvals to take back that no acquirer received. It goes on until each is confirmed'],
      [
        'problem',
        'n3 approved 1 request in stand-in that is not entered yet. That happens by itself once the owners answer; ' +
          '`quadrant stand-in report` lists them',
      ],
    ],
  ],
  [
    'edits of config.db by the sqlite3 shell are said: those that wait, and the last that was undone',
    {
      processes: {
        n2: {
          edits: {
            waiting: 1,
            entered: 0,
            refused: 2,
            restored: 0,
            last: { outcome: 'refused', reason: 'failover_map a: rank is made by the nodes and not entered' },
          },
        },
        n3: {
          edits: {
            waiting: 0,
            entered: 0,
            refused: 0,
            restored: 1,
            last: { outcome: 'restored', reason: 'shell_update_pan_range was missing and is restored' },
          },
        },
      },
    },
    [
      ['note', 'n2 has 1 edit of its config.db by the sqlite3 shell that waits for the leader of config'],
      [
        'note',
        "an edit of n2's config.db by the sqlite3 shell was undone: failover_map a: rank is made by the nodes and not " +
          'entered. `quadrant config shell` lists what became of edits',
      ],
      [
        'note',
        "what watches n3's config.db for edits had been changed and was put in order: shell_update_pan_range was missing " +
          'and is restored. `quadrant config shell` lists what became of edits',
      ],
    ],
  ],
  [
    'changes that are queued at a node are said, and the last that was refused',
    {
      processes: {
        n2: { queue: { waiting: 2, last: null } },
        n3: { queue: { waiting: 0, last: 'VERSION_CONFLICT: version 9 is there' } },
      },
    },
    [
      ['note', 'n2 has 2 changes of the configuration queued that wait for the leader of config'],
      [
        'note',
        'a change that was queued at n3 was refused: VERSION_CONFLICT: version 9 is there. `quadrant config queue` lists ' +
          'them',
      ],
    ],
  ],
  [
    'a peer with another nodes.yaml is named with the difference',
    { processes: { n1: { mismatch: [{ peer: 'n4', difference: 'nodes[3].site (west, north)' }] } } },
    [
      [
        'problem',
        'n1 refuses n4: their nodes.yaml differ in nodes[3].site (west, north). Give both the same and restart',
      ],
    ],
  ],
  [
    'a drain under way names what is left, a hand-over its target, a stalled thread its time',
    {
      processes: { n2: { draining: true }, n3: { stalledMs: 420 } },
      copies: { n2: { b: { transferring: 'n1' } } },
    },
    [
      ['note', 'n2 is being drained and still leads group b'],
      ['problem', "n3's deciding thread has stood still for 420 ms: what it leads goes to others"],
      ['note', 'n2 is handing group b over to n1'],
    ],
  ],
  [
    'the same complaint of several processes is one line, and what is said of a group is not said twice',
    {
      owners: { a: undefined },
      processes: {
        n1: { reasons: ['no configuration has been entered yet', 'group a: nobody leads it'] },
        n3: { reasons: ['no configuration has been entered yet', 'group b: no majority answers'] },
      },
    },
    [
      ['problem', 'group a is without an owner, and n1, n2, n3, n4 and w1 can elect one: that takes about a second'],
      ['problem', 'n1, n3: no configuration has been entered yet: `quadrant config load FILE`'],
      ['problem', 'n3: group b: no majority answers'],
    ],
  ],
  [
    'copies that are far behind are named with how far, where nothing else says it',
    {
      copies: {
        n1: { a: { commit: 9000, applied: 9000 }, b: { commit: 3000, applied: 3000 } },
        n2: { a: { applied: 8999 }, b: { applied: 3000 } },
        n3: { a: { applied: 8001 }, b: { applied: 2500 } },
        n4: { a: { applied: 4000 }, b: { applied: 1000 } },
        w1: { a: { durable: 9000 }, b: { durable: 500 } },
      },
    },
    [
      [
        'note',
        "n4's copies of groups a and b are up to 5000 entries behind and catching up: ask again. If that does not get " +
          "less, look at n4's disk and network",
      ],
      [
        'note',
        "w1's copy of group b is up to 2500 entries behind and catching up: ask again. If that does not get less, look " +
          "at w1's disk and network",
      ],
    ],
  ],
  [
    'a copy that has stopped says what to do',
    { processes: { n3: { reasons: ['group a has stopped here: database or disk is full'] } } },
    [
      [
        'problem',
        'n3: group a has stopped here: database or disk is full. It has left the vote, the other copies go on. Where the ' +
          'disk of n3 is full or read-only: mend it, and it goes on by itself. Otherwise copy its files for inspection, ' +
          'then `quadrant node rebuild n3`',
      ],
    ],
  ],
  [
    'trouble with a disk is told before copies stop for it',
    {
      processes: {
        n1: { disk: { freeBytes: 300 * 1024 ** 2, walBytes: { 'group-a.db': 600 * 1024 ** 2, 'group-b.db': 4096 } } },
        n2: { disk: { freeBytes: 2 * 1024 ** 3, walBytes: {} }, counters: { 'unsynced-reversals': 2 } },
      },
    },
    [
      [
        'problem',
        "n1's disk has only 300 MB free: make room. A copy that cannot be written stops and has to be rebuilt",
      ],
      [
        'problem',
        "n1's group-a.db has 600 MB in its write-ahead log: something reads the file without end, or holds it locked, " +
          'a shell or a backup. Reads get slower until it lets go',
      ],
      [
        'problem',
        'n2 could not write 2 approvals to take back into its edge.db: look at its disk. They are in its memory alone: ' +
          'do not stop it while it has approvals to take back',
      ],
    ],
  ],
  [
    "nodes that use another site's broker are named together",
    {
      processes: {
        n1: { broker: '127.0.0.1:7422' },
        n2: { broker: '127.0.0.1:7422' },
        w1: { site: 'north', broker: '127.0.0.1:7423' },
      },
    },
    [
      [
        'note',
        'n1 and n2 use broker b-west of site west instead of b-east: all is served, by a longer way. They return as soon ' +
          'as their own answers',
      ],
    ],
  ],
  [
    'different versions are named, as in a rolling upgrade',
    { processes: { n3: { version: '0.2.0' } } },
    [['note', 'the processes have different versions: 0.1.0 on n1, n2, n4 and w1; 0.2.0 on n3. Finish the upgrade']],
  ],
  [
    'a node that no broker reaches, though it answers',
    { processes: { n3: { reasons: ['no broker can be reached'] } } },
    [
      [
        'problem',
        'n3: no broker can be reached. One of its connections is gone, for its answer came by another: look at the ' +
          'network between n3 and the brokers',
      ],
    ],
  ],
];

for (const [claim, situation, said] of table) {
  test(claim, () => {
    const found = findings(topology, answersOf(situation));
    assert.deepEqual(
      found.map(({ kind, text }) => [kind, text]),
      said,
    );
  });
}
