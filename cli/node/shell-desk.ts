import type { Clock } from '../../base/clock.ts';
import type { NodeId } from '../../base/identifiers.ts';
import type { Logger } from '../../base/log.ts';
import { readProposal, readShellEdits, type ShellEdit } from '../../config-db/shell-edits.ts';
import type { EditOutcome } from '../../store/group-file.ts';
import type { GroupReader } from '../../store/log-reader.ts';
import { ChangeCarrier, type Bring, type Carried } from './change-carrier.ts';
import type { EditStatus } from './status.ts';

export interface ShellDeskOptions {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** A reader of config.db; undefined while there is none. */
  readonly database: () => GroupReader['database'] | undefined;
  readonly bring: Bring;
  /** Has it noted in config.db that an edit came to nothing. */
  readonly close: (outcome: EditOutcome) => void;
  /** Edits that had come to their end before this process started: nothing is said of them any more. */
  readonly closedBefore: readonly string[];
}

const saidForMs = 3_600_000;
/** Edits looked at; more than these never change any more. */
const maximumEdits = 1000;

/**
 * Brings what was edited in this node's config.db by the `sqlite3` shell to the desk that enters changes, one after the
 * other, and says what became of each. An accepted one comes back through the log, which is where it is noted as entered:
 * a node that is killed in between brings it again under the same id, and the desk enters an id once.
 */
export class ShellDesk {
  readonly #options: ShellDeskOptions;
  readonly #closed: Set<string>;
  readonly #counts = { entered: 0, refused: 0, restored: 0 };
  #waiting = 0;
  #last: { readonly outcome: 'refused' | 'restored'; readonly reason: string; readonly atMs: number } | undefined;
  #seen: { readonly database: GroupReader['database']; readonly version: unknown } | undefined;
  readonly #carrier: ChangeCarrier;

  constructor(options: ShellDeskOptions) {
    this.#options = options;
    this.#closed = new Set(options.closedBefore);
    this.#carrier = new ChangeCarrier(options.clock, options.bring);
  }

  get status(): EditStatus {
    const last = this.#last;
    const isSaid = last !== undefined && this.#options.clock.monotonicMs() - last.atMs < saidForMs;
    return {
      waiting: this.#waiting,
      ...this.#counts,
      last: isSaid ? { outcome: last.outcome, reason: last.reason } : null,
    };
  }

  /** Some times a second. Reads nothing while nobody has written into the file. */
  tick(): void {
    const database = this.#options.database();
    if (database === undefined) return;
    const version = database.pragma('data_version', { simple: true });
    const isNew = this.#seen?.database !== database || this.#seen.version !== version;
    if (!isNew && (this.#waiting === 0 || !this.#carrier.mayCarry)) return;
    this.#seen = { database, version };
    const edits = readShellEdits(database, maximumEdits).reverse();
    for (const edit of edits) if (edit.outcome !== 'waiting' && !this.#closed.has(edit.change)) this.#told(edit);
    const waiting = edits.filter(({ outcome }) => outcome === 'waiting');
    this.#waiting = waiting.length;
    const [next] = waiting;
    if (next === undefined || !this.#carrier.mayCarry) return;
    const { change, sequence } = next;
    const proposal = { id: change, by: `shell@${this.#options.self}`, changes: readProposal(database, sequence) };
    this.#carrier.carry(proposal, (carried) => {
      this.#ended(change, carried);
    });
  }

  /** Entered: the log brings it here. Nothing to change: the log has nothing to bring. */
  #ended(change: string, carried: Carried): void {
    if (carried.kind === 'refused') this.#options.close({ change, reason: carried.reason });
    else if (carried.index === 0) this.#options.close({ change, reason: undefined });
    if (this.#closed.has(change)) this.#carrier.goOn();
  }

  #told({ change, outcome, reason, index, rows }: ShellEdit): void {
    const { log, clock } = this.#options;
    this.#closed.add(change);
    this.#carrier.goOn();
    const what = { change, rows: rows.length, tables: [...new Set(rows.map(({ table }) => table))] };
    switch (outcome) {
      case 'entered':
        this.#counts.entered += 1;
        log.info(
          { event: 'shell-edit-entered', index, ...what },
          'an edit of config.db by the sqlite3 shell was entered',
        );
        break;
      case 'nothing to change':
        log.info(
          { event: 'shell-edit-entered', ...what },
          'an edit of config.db by the sqlite3 shell had been made already',
        );
        break;
      case 'refused':
      case 'restored': {
        this.#counts[outcome] += 1;
        this.#last = { outcome, reason: reason ?? '', atMs: clock.monotonicMs() };
        const [event, message] =
          outcome === 'refused'
            ? ['shell-edit-undone', 'an edit of config.db by the sqlite3 shell was undone']
            : ['shell-watch-restored', 'what watches config.db for edits had been changed and was put in order'];
        log.warn({ event, reason, ...what }, message);
        break;
      }
      case 'waiting':
    }
  }
}
