/**
 * A failover order as it stands in a column: node ids joined by `>`, the owner first. The empty order is ''.
 * Reading never fails: what is wrong with an order (a node missed or named twice) is the whole-configuration check's.
 */
export type FailoverOrder = readonly string[];

export function parseFailoverOrder(text: string): FailoverOrder {
  return text === '' ? [] : text.split('>');
}

export function formatFailoverOrder(order: FailoverOrder): string {
  return order.join('>');
}
