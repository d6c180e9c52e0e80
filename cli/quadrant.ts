import { Command, CommanderError } from 'commander';

import { registerLoad } from './acquirer/load-command.ts';
import { registerSend } from './acquirer/send.ts';
import { registerAudit } from './commands/audit.ts';
import { registerCards } from './commands/cards.ts';
import { registerCompare } from './commands/compare.ts';
import { registerConfig } from './commands/config.ts';
import { registerDrain } from './commands/drain.ts';
import { registerFailback } from './commands/failback.ts';
import { registerNightly } from './commands/nightly.ts';
import { registerNode } from './commands/node.ts';
import { registerRanges } from './commands/ranges.ts';
import { registerRecover } from './commands/recover.ts';
import { registerRepair } from './commands/repair.ts';
import { registerStandIn } from './commands/stand-in.ts';
import { registerStatus } from './commands/status.ts';
import { registerTail } from './commands/tail.ts';
import { registerVerify } from './commands/verify.ts';
import { createContext, exitCode } from './context.ts';
import { registerDrill } from './drill/command.ts';
import { commandRunner } from './run-command.ts';

/** Takes `--config FILE` and `--data DIR` out of the arguments: they may stand anywhere. */
function takeClusterFlags(args: readonly string[]): {
  rest: string[];
  config: string | undefined;
  data: string | undefined;
} {
  const taken: Record<string, string | undefined> = {};
  const rest: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const [, name, attached] = /^--(config|data)(?:=(.*))?$/.exec(args[index] ?? '') ?? [];
    if (name === undefined) rest.push(args[index] ?? '');
    else taken[name] = attached ?? args[++index];
  }
  return { rest, config: taken['config'], data: taken['data'] };
}

// Whoever reads our output may have had enough of it (`| head`).
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

const { rest, config, data } = takeClusterFlags(process.argv.slice(2));
const context = createContext(
  config ?? process.env['QUADRANT_CONFIG'] ?? 'nodes.yaml',
  data ?? process.env['QUADRANT_DATA'] ?? 'data',
);
const run = commandRunner(context, (code) => {
  process.exitCode = code;
});

const program = new Command('quadrant')
  .description('Quadrant: an active/active replicated card-authorization switch')
  .option('--config <file>', "the cluster's nodes.yaml (QUADRANT_CONFIG, else ./nodes.yaml)")
  .option('--data <dir>', 'where the cluster keeps its data (QUADRANT_DATA, else ./data)')
  .addHelpText('after', '\nExit codes: 0 good, 1 failed, 2 usage, 3 differences found, 4 some node unreachable')
  .exitOverride();
registerStatus(program, run);
registerTail(program, run);
registerDrain(program, run);
registerFailback(program, run);
registerRecover(program, run);
registerStandIn(program, run);
registerConfig(program, run);
registerCards(program, run);
registerRanges(program, run);
registerSend(program, context);
registerLoad(program, context);
registerNode(program, run);
registerVerify(program, run);
registerCompare(program, run);
registerRepair(program, run);
registerAudit(program, run);
registerNightly(program, run);
registerDrill(program, run, config !== undefined || data !== undefined);

try {
  await program.parseAsync(rest, { from: 'user' });
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? exitCode.good : exitCode.usage;
}
