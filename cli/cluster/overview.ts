import { formatTable } from '../context.ts';

/** What a person sees when the cluster is ready. */
export interface ClusterOverview {
  readonly nodes: readonly {
    readonly id: string;
    readonly site: string;
    /** `host:port` for ISO 8583. */
    readonly acquirer: string;
    /** Groups or ranges that the node decides for now. */
    readonly owns: readonly string[];
  }[];
  /** Complete commands for a second terminal. */
  readonly tryIt: readonly string[];
}

export function formatOverview(overview: ClusterOverview): string {
  const rows = [
    ['node', 'site', 'ISO 8583', 'owns'],
    ...overview.nodes.map((node) => [node.id, node.site, node.acquirer, node.owns.join(', ') || '-']),
  ];
  const commands = overview.tryIt.map((command) => `  ${command}`);
  return ['', formatTable(rows), '', 'Try in a second terminal:', ...commands, ''].join('\n');
}
