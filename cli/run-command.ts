import { describeError, SwitchError } from '../base/errors.ts';
import { UsageError } from './acquirer/usage.ts';
import { exitCode, type CommandContext } from './context.ts';

/** Carries out a command: its exit code becomes the process's, its failure one clear sentence and a hint. */
export type RunCommand = (action: (context: CommandContext) => Promise<number>) => Promise<void>;

const unreachableCodes: ReadonlySet<string> = new Set(['NODE_UNREACHABLE', 'BROKER_UNREACHABLE', 'OWNER_UNREACHABLE']);

export function commandRunner(context: CommandContext, finish: (code: number) => void): RunCommand {
  return async (action) => {
    try {
      finish(await action(context));
    } catch (error) {
      context.note(`quadrant: ${describeError(error)}`);
      if (error instanceof SwitchError) context.note(error.hint);
      finish(exitCodeOf(error));
    }
  };
}

/** 4 when nobody could be reached, 2 when the command line is wrong, else 1. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return exitCode.usage;
  return error instanceof SwitchError && unreachableCodes.has(error.code) ? exitCode.unreachable : exitCode.failed;
}
