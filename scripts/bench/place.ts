import type { Topology } from '../../base/topology.ts';

/** Clusters to measure: their nodes.yaml, configuration and cards. */

const firstPort = 18_000;

/** One node, one broker; or the four nodes, three brokers and the witness of the sample. */
export function topologyText(nodes: number): string {
  const sites = nodes === 1 ? ['east'] : ['east', 'west', 'north'];
  const lines = [
    `cluster: bench-${nodes}`,
    'sites:',
    ...sites.map((site) => `  - { id: ${site}, description: ${site} }`),
  ];
  lines.push('nodes:');
  for (let node = 0; node < nodes; node++) {
    const site = sites[Math.floor((node * 2) / nodes)] ?? 'east';
    lines.push(
      `  - { id: n${node + 1}, site: ${nodes === 1 ? 'east' : site}, acquirer: { port: ${firstPort + node} } }`,
    );
  }
  if (nodes > 1) lines.push('witness: { id: w1, site: north }');
  lines.push('brokers:');
  sites.forEach((site, at) => {
    lines.push(
      `  - { id: b-${site}, site: ${site}, client: { port: ${firstPort + 100 + at} }, cluster: { port: ${firstPort + 200 + at} } }`,
    );
  });
  return `${lines.join('\n')}\n`;
}

/** A range for each node's group, all `quorum`: 990010 the first node's, and so on. */
export function configurationText(topology: Topology): string {
  const ids = topology.nodes.map((node) => node.id);
  const lines = ['failover_map:'];
  ids.forEach((_id, at) => {
    lines.push(`  - { group_id: g${at}, failover_order: ${[...ids.slice(at), ...ids.slice(0, at)].join('>')} }`);
  });
  lines.push('pan_range:');
  const range = (prefix: string, group: number): string =>
    `  - { prefix: '${prefix}', group_id: g${group}, description: bench, issuer: bench, durability: quorum, hold_days: 7 }`;
  ids.forEach((_id, at) => lines.push(range(`99001${at}`, at)));
  lines.push(range('', 0), 'acquirer_link:');
  lines.push("  - { link_id: acquirer, acquiring_institutions: '*', partial_approval: false, deadline_ms: 10000 }");
  return `${lines.join('\n')}\n`;
}

/** A card of one of the nodes' ranges, the `index`th; no two have the same number. */
export function cardLine(index: number, nodes: number): string {
  const digits = `99001${index % nodes}${String(index).padStart(9, '0')}`;
  return `${digits}${checkDigit(digits)},4012,active,840,900000000000`;
}

function checkDigit(digits: string): number {
  let sum = 0;
  for (let position = 0; position < digits.length; position++) {
    const digit = Number(digits.charAt(digits.length - 1 - position)) * (position % 2 === 0 ? 2 : 1);
    sum += digit > 9 ? digit - 9 : digit;
  }
  return (10 - (sum % 10)) % 10;
}
