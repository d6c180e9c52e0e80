import type { GroupReader } from '../store/log-reader.ts';
import type { EntrySource } from './log-tail.ts';
import type { Membership } from './raft.ts';

/** A group's file as consensus reads it, beside the one that writes it. */
export interface OpenedGroup {
  readonly path: string;
  readonly applied: number;
  readonly source: EntrySource;
  /** Ascending: the newest membership at or below the applied index, if the log has one, and all later ones. */
  readonly memberships: readonly Membership[];
  close(): void;
}

/** What a reader of the file at `path`, whose fold is at `applied`, is for consensus, which closes it. */
export function openedGroup(reader: GroupReader, path: string, applied: number): OpenedGroup {
  const memberships: Membership[] = [];
  for (let found = reader.membership(); found !== undefined; found = reader.membership(found.index - 1)) {
    const { voters, learners } = found.entry;
    memberships.unshift({ index: found.index, voters, learners });
    if (found.index <= applied) break;
  }
  return {
    path,
    applied,
    source: reader,
    memberships,
    close: () => {
      reader.close();
    },
  };
}
