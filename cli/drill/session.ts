import type { Clock } from '../../base/clock.ts';
import { SwitchError } from '../../base/errors.ts';
import { describe, UndoJournal } from './undo.ts';

export interface SessionOptions {
  readonly stateFolder: string;
  /** For whoever wants to drill meanwhile. */
  readonly name: string;
  readonly clock: Clock;
  readonly note: (line: string) => void;
  /** Ends the process; for tests. */
  readonly exit: (code: number) => void;
}

/**
 * Takes the lock of all drills, undoes what an earlier drill left when it was killed, and runs `action`. Whatever ends
 * it (success, failure, SIGINT, SIGTERM, SIGHUP), what is in the undo journal is undone before the lock is given back.
 */
export async function inSession<T>(options: SessionOptions, action: (undo: UndoJournal) => Promise<T>): Promise<T> {
  const { stateFolder, name, clock, note, exit } = options;
  const undo = UndoJournal.open(stateFolder, name, clock);
  const interruption = new AbortController();
  const interrupt = (): void => {
    if (interruption.signal.aborted) return;
    interruption.abort();
    undo.close();
    note('Stopping: undoing what the drill did ...');
    void undo.undoAll(note).then((complete) => {
      undo.release();
      note(complete ? 'Stopped, and everything undone.' : 'Stopped. Try `quadrant drill undo` for the rest.');
      exit(1);
    });
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, interrupt);
  try {
    await undoLeftOver(undo, note);
    return await action(undo);
  } catch (error) {
    // What the action says when everything is taken from under it is of no interest: the process is about to end.
    if (interruption.signal.aborted) await new Promise(() => undefined);
    throw error;
  } finally {
    if (!interruption.signal.aborted) {
      await undo.undoAll(note);
      for (const signal of signals) process.off(signal, interrupt);
      undo.release();
    }
  }
}

async function undoLeftOver(undo: UndoJournal, note: (line: string) => void): Promise<void> {
  const left = undo.pending;
  if (left.length === 0) return;
  note(`An earlier drill was killed. Undoing ${left.map(describe).join(', ')} ...`);
  if (await undo.undoAll(note)) return;
  throw new SwitchError('DRILL_REFUSED', 'what an earlier drill left could not be undone');
}
