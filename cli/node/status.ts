/** What a node says of edits of its config.db by the sqlite3 shell. */
export interface EditStatus {
  /** Proposed, and not entered yet. */
  readonly waiting: number;
  /** Since the process started. */
  readonly entered: number;
  readonly refused: number;
  readonly restored: number;
  /** The newest that was undone, or the last time the triggers were put in order, within the last hour. */
  readonly last: { readonly outcome: 'refused' | 'restored'; readonly reason: string } | null;
}

/** Changes of the configuration that a node keeps until `config` has a leader. */
export interface QueueStatus {
  readonly waiting: number;
  /** Why the newest that came to nothing within the last hour was refused. */
  readonly last: string | null;
}

export const noQueue: QueueStatus = { waiting: 0, last: null };

/** Of a process whose config.db nobody has edited, or that has none. */
export const noEdits: EditStatus = { waiting: 0, entered: 0, refused: 0, restored: 0, last: null };

/** What one process says about itself; the answer to the call `status`. */
export interface ProcessStatus {
  readonly id: string;
  readonly site: string;
  readonly role: 'node' | 'witness';
  readonly pid: number;
  readonly version: string;
  /** ready: it serves. starting: not yet. degraded: it serves, but something in `reasons` needs a look. */
  readonly state: 'ready' | 'starting' | 'degraded';
  readonly reasons: readonly string[];
  readonly acquirer: { readonly host: string; readonly port: number } | undefined;
  readonly broker: string | undefined;
  readonly connections: number;
  readonly inFlight: number;
  readonly configurationIndex: number;
  readonly groups: readonly GroupStatus[];
  readonly counters: Readonly<Record<string, number>>;
  /** It hands on what it leads and takes nothing over, until it is told otherwise. */
  readonly draining: boolean;
  /** Groups whose copy is being made anew from another's, and how much of it is there: 0 to 100. */
  readonly rebuilding: readonly { readonly group: string; readonly percent: number }[];
  /** How long the deciding thread has not moved, when that is longer than it should be; else 0. */
  readonly stalledMs: number;
  /** Undelivered approvals that this edge still has to have reversed. */
  readonly reversalsDue: number;
  /** Approvals of this edge in stand-in: not yet in a log, and entered. */
  readonly standIn: { readonly pending: number; readonly entered: number };
  /** Edits of this node's config.db by the sqlite3 shell. */
  readonly edits: EditStatus;
  readonly queue: QueueStatus;
  /** Restrictions of cards that work at this node and that no owner has entered yet. */
  readonly restrictionsUndelivered: number;
  /** Absent when it cannot be told. */
  readonly disk?: DiskStatus | undefined;
  /** Peers that were refused because their nodes.yaml is another, and in what. */
  readonly mismatch?: readonly { readonly peer: string; readonly difference: string }[];
}

export interface DiskStatus {
  /** Free on the data folder's file system. */
  readonly freeBytes: number;
  /** Write-ahead log that is not in its file yet, by file. */
  readonly walBytes: Readonly<Record<string, number>>;
}

export interface GroupStatus {
  readonly name: string;
  readonly role: 'leader' | 'follower' | 'pre-candidate' | 'candidate';
  readonly leader: string | undefined;
  readonly term: number;
  readonly last: number;
  /** Term of the last entry: of two logs the one with the higher is the newer, whatever their lengths. */
  readonly lastTerm: number;
  readonly durable: number;
  readonly commit: number;
  readonly applied: number;
  /** Milliseconds since the leader was heard; at the leader, since a majority was. */
  readonly silenceMs: number | undefined;
  readonly failure: string | undefined;
  /** At the leader: what it knows of its followers. */
  readonly followers: readonly {
    readonly id: string;
    readonly match: number;
    readonly applied: number;
    readonly silenceMs: number;
  }[];
  /** This process's place in the order by its own derived row, 1 for the owner; absent at the witness. */
  readonly rank?: number;
  /** The group's failover order; for `config` that of nodes.yaml. Empty where it is not known. */
  readonly order: readonly string[];
  /** Members by this process's log. */
  readonly voters: readonly string[];
  readonly learners: readonly string[];
  /** At the leader: how much longer its lease is valid. */
  readonly leaseMs?: number;
  /** At the leader: to whom it is handing over. */
  readonly transferring?: string;
  /** Whether this member votes; if not, `votesReason` says why, in words that end in what is being done. */
  readonly votes: boolean;
  readonly votesReason?: string;
  /** `local` answers of this process that its log lost: not yet offered with success, and what came of the others. */
  readonly salvage: { readonly pending: number; readonly adopted: number; readonly voided: number };
}

type Without<Status, Keys extends keyof Status> = Omit<Status, Keys> & Partial<Pick<Status, Keys>>;

/** The answer of any version: in a rolling upgrade some processes do not say yet what later ones do. */
export type AnsweredStatus = Without<
  Omit<ProcessStatus, 'groups'>,
  'draining' | 'rebuilding' | 'stalledMs' | 'reversalsDue' | 'standIn' | 'restrictionsUndelivered' | 'edits' | 'queue'
> & {
  readonly groups: readonly Without<GroupStatus, 'lastTerm' | 'order' | 'voters' | 'learners' | 'votes' | 'salvage'>[];
};

/** A status with everything in it: what a process does not say is as if nothing were special about it. */
export function completeStatus(answered: AnsweredStatus): ProcessStatus {
  return {
    draining: false,
    rebuilding: [],
    stalledMs: 0,
    reversalsDue: 0,
    standIn: { pending: 0, entered: 0 },
    edits: noEdits,
    queue: noQueue,
    restrictionsUndelivered: 0,
    ...answered,
    groups: answered.groups.map((group) => ({
      lastTerm: group.term,
      order: [],
      voters: [],
      learners: [],
      votes: true,
      salvage: { pending: 0, adopted: 0, voided: 0 },
      ...group,
    })),
  };
}
