declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** A process of the cluster: a node or the witness; `^[a-z][a-z0-9-]{0,15}$`, from nodes.yaml. */
export type NodeId = Branded<'NodeId'>;
/** A failover group: all PAN ranges with one failover order, one log, one owner; same shape as a node's id. */
export type GroupId = Branded<'GroupId'>;
/** Surrogate of a card: `group.term.index.position` of its import entry; never used again. Not card data. */
export type CardId = Branded<'CardId'>;

const identifierPattern = /^[a-z][a-z0-9-]{0,15}$/;

export const identifierRule = 'a lower-case letter, then up to 15 letters, digits or dashes';

export function isIdentifier(text: string): boolean {
  return identifierPattern.test(text);
}

export function nodeId(text: string): NodeId {
  if (!isIdentifier(text)) throw new RangeError(`not a node id: expected ${identifierRule}`);
  return text as NodeId;
}

export function groupId(text: string): GroupId {
  if (!isIdentifier(text)) throw new RangeError(`not a group id: expected ${identifierRule}`);
  return text as GroupId;
}

export function cardId(group: GroupId, term: number, index: number, position: number): CardId {
  return `${group}.${term}.${index}.${position}` as CardId;
}

/** The group of everything that is not a card: ranges, failover map, limits, links. */
export const configGroup: GroupId = groupId('config');
