import type { NodeId } from '../../base/identifiers.ts';

import type { ListedPage, ListedRow } from '../node/configuration-reports.ts';
import type { OperatorBus } from '../operator-bus.ts';

/** The configuration as one node holds it. */
export type ListedConfiguration = readonly ListedRow[];

/** Every row as the node holds it, page by page. */
export async function listRows(bus: OperatorBus, node: NodeId): Promise<ListedConfiguration> {
  const rows: ListedRow[] = [];
  for (let next: number | undefined = 0; next !== undefined;) {
    const page = (await bus.call(node, 'configuration.list', { from: next })) as ListedPage;
    rows.push(...page.rows);
    next = page.next;
  }
  return rows;
}

export function findRow(there: ListedConfiguration, table: string, key: string): ListedRow | undefined {
  return there.find((row) => row.table === table && row.key === key);
}
