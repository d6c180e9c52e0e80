import { createPrivateKey, createPublicKey, hash, sign, verify } from 'node:crypto';

import { z } from 'zod';

import type { Operator } from '../base/topology.ts';
import type { RepairStep } from './repair-plan.ts';
import type { RowChange } from '../store/row-repair.ts';

/*
 * Two persons: where nodes.yaml asks for approvals, a node changes rows only as a plan says which so many different
 * operators have signed. What they sign is the SHA-256 of the plan's head and of the digest of every change, so that each
 * node can check what it is asked to change against the plan, and nobody can put anything into it.
 */

/** An operator's key signed the plan. */
const planSignatureSchema = z.strictObject({
  operator: z.string().max(64),
  /** ISO 8601. */
  at: z.string().max(40),
  /** Ed25519, in base64, over `planHash` and the time. */
  signature: z.string().max(128),
});

export const signedPlanSchema = z.strictObject({
  cluster: z.string().max(64),
  /** undo: what the repair of this name has changed is put back. */
  action: z.enum(['repair', 'undo']),
  repair: z.string().regex(/^r[0-9a-f]{16}$/),
  /** ISO 8601; later nobody carries it out. */
  expiresAt: z.iso.datetime(),
  /** `changeDigest` of every row change, sorted; none of an undo. */
  changes: z.array(z.string().regex(/^[0-9a-f]{32}$/)).max(30_000),
  signatures: z.array(planSignatureSchema).max(20),
});
export type SignedPlan = z.infer<typeof signedPlanSchema>;

/** A change of one row at one node, whoever tells it: the plan's step, or the call that a node gets. */
export function changeDigest(
  node: string,
  group: string,
  { table, key, kind, found, right }: Pick<RepairStep, 'table' | 'key' | 'kind' | 'found' | 'right'>,
): string {
  return hash('sha256', JSON.stringify([node, group, table, key, kind, found, right]), 'hex').slice(0, 32);
}

/** The same of a change as a node is asked for it. */
export function digestOfCall(node: string, group: string, change: RowChange): string {
  const right = change.kind === 'put' || change.kind === 'derive' ? change.right : null;
  return changeDigest(node, group, { ...change, right } as Parameters<typeof changeDigest>[2]);
}

export function planHash({ cluster, action, repair, expiresAt, changes }: Omit<SignedPlan, 'signatures'>): string {
  return hash('sha256', JSON.stringify([1, cluster, action, repair, expiresAt, changes]), 'hex');
}

function signedText(plan: SignedPlan, at: string): Buffer {
  return Buffer.from(`quadrant plan ${planHash(plan)} ${at}`);
}

/** The operator whose private key this is; undefined when nodes.yaml has none with it. */
export function operatorOf(privateKey: string, operators: readonly Operator[]): Operator | undefined {
  const der = createPublicKey(createPrivateKey(privateKey)).export({ type: 'spki', format: 'der' }).toString('base64');
  return operators.find(({ key }) => key === der);
}

export function signPlan(plan: SignedPlan, operator: string, privateKey: string, at: string): SignedPlan {
  const signature = sign(null, signedText(plan, at), createPrivateKey(privateKey)).toString('base64');
  return { ...plan, signatures: [...plan.signatures, { operator, at, signature }] };
}

/** The different operators of nodes.yaml whose signatures of this very plan are good. */
export function signersOf(plan: SignedPlan, operators: readonly Operator[]): readonly string[] {
  const good = plan.signatures.filter(({ operator, at, signature }) => {
    const known = operators.find(({ id }) => id === operator);
    if (known === undefined) return false;
    const key = createPublicKey({ key: Buffer.from(known.key, 'base64'), format: 'der', type: 'spki' });
    return verify(null, signedText(plan, at), key, Buffer.from(signature, 'base64'));
  });
  return [...new Set(good.map(({ operator }) => operator))];
}

/** Why the plan may not be carried out now; undefined: it may. */
export function refusalOf(
  plan: SignedPlan,
  rules: { readonly cluster: string; readonly approvals: number; readonly operators: readonly Operator[] },
  nowMs: number,
): string | undefined {
  if (plan.cluster !== rules.cluster) return `the plan is of cluster ${plan.cluster}`;
  if (Date.parse(plan.expiresAt) <= nowMs) return `the plan expired at ${plan.expiresAt}`;
  const signers = signersOf(plan, rules.operators);
  if (signers.length >= rules.approvals) return undefined;
  const by = signers.length === 0 ? 'nobody' : signers.join(' and ');
  return `the plan is signed by ${by}; ${rules.approvals} different operators have to`;
}
