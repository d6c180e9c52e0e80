import { describeError } from '../base/errors.ts';
import { FoldRecomputation } from '../store/fold-recomputation.ts';
import type { Fold } from '../store/group-file.ts';
import type { SnapshotReader, TableSpecification } from '../store/snapshot-reader.ts';
import { answerCompareCall, failed, limits, type CompareCall, type CompareReply } from './protocol.ts';

export interface DeskOptions {
  readonly reader: SnapshotReader;
  readonly tables: readonly TableSpecification[];
  /** What the fold is made of and where, when somebody asks to have it made anew; undefined: this side has none. */
  readonly recomputation: { readonly fold: Fold; readonly path: string } | undefined;
  /** What is wrong in the file's pages; takes as long as it takes, so in a thread of its own. */
  readonly integrityFaults: () => Promise<readonly string[]>;
}

interface IntegrityCheck {
  /** null as long as it goes on. */
  faults: readonly string[] | null;
  failure: string | undefined;
}

/** One side of one compare of one group: its snapshot, and what is made from it besides. */
export class CompareDesk {
  readonly #options: DeskOptions;
  #recomputation: FoldRecomputation | undefined;
  #integrity: IntegrityCheck | undefined;

  constructor(options: DeskOptions) {
    this.#options = options;
  }

  get reader(): SnapshotReader {
    return this.#options.reader;
  }

  answer(call: CompareCall): CompareReply {
    switch (call.kind) {
      case 'integrity':
        return this.#checkIntegrity();
      case 'recompute':
        return this.#recompute();
      case 'close':
        this.close();
        return { kind: 'closed' };
      default: {
        const reader = call.copy === undefined ? this.#options.reader : this.#recomputation?.reader;
        if (reader === undefined) return failed('not-recomputed', 'the fold has not been recomputed here');
        return answerCompareCall(reader, this.#options.tables, call);
      }
    }
  }

  /** The fold as the entries make it, once it has been made anew. */
  get recomputed(): SnapshotReader | undefined {
    return this.#recomputation?.reader;
  }

  /** Takes over the fold that another desk of the same file has made anew, at an earlier mark: to go on with it. */
  adopt(earlier: CompareDesk): void {
    if (this.#recomputation !== undefined || earlier.#recomputation === undefined) return;
    earlier.#recomputation.goOn(this.#options.reader);
    this.#recomputation = earlier.#recomputation;
    earlier.#recomputation = undefined;
  }

  close(): void {
    this.#recomputation?.close();
    this.#recomputation = undefined;
    this.#options.reader.close();
  }

  #checkIntegrity(): CompareReply {
    if (this.#integrity === undefined) {
      const check: IntegrityCheck = { faults: null, failure: undefined };
      this.#integrity = check;
      this.#options.integrityFaults().then(
        (faults) => {
          check.faults = faults;
        },
        (error: unknown) => {
          check.failure = describeError(error);
        },
      );
    }
    const { faults, failure } = this.#integrity;
    return failure === undefined
      ? { kind: 'integrity', faults: faults === null ? null : [...faults] }
      : failed('error', `its pages could not be checked: ${failure}`);
  }

  #recompute(): CompareReply {
    const { recomputation, reader } = this.#options;
    if (recomputation === undefined) return failed('not-recomputed', 'this side has no fold');
    if (reader.base.index > 0) return failed('not-recomputed', `its log begins after entry ${reader.base.index}`);
    try {
      this.#recomputation ??= new FoldRecomputation(reader, recomputation.path, recomputation.fold);
      return { kind: 'recomputed', ...this.#recomputation.advance(limits.recomputedEntries) };
    } catch (error) {
      return failed('not-recomputed', `its entries cannot be applied: ${describeError(error)}`);
    }
  }
}
