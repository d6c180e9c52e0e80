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
}

export interface GroupStatus {
  readonly name: string;
  readonly role: 'leader' | 'follower' | 'candidate';
  readonly leader: string | undefined;
  readonly term: number;
  readonly last: number;
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
}
