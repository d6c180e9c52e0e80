export interface BrokerLine {
  readonly level: 'info' | 'warn' | 'error';
  readonly details: {
    readonly event: string;
    readonly thread: 'main' | 'consensus';
    readonly broker?: string;
    readonly reason?: string;
  };
  readonly message: string;
}

/** The log line for what a thread's connection to its broker says of itself (`NatsBusOptions.onStatus`). */
export function brokerLine(status: string, detail: string, thread: 'main' | 'consensus'): BrokerLine {
  switch (status) {
    case 'disconnect':
      return {
        level: 'warn',
        details: { event: 'broker-lost', thread, broker: detail },
        message: 'lost its broker: the next one is tried',
      };
    case 'reconnect':
      return {
        level: 'info',
        details: { event: 'broker-regained', thread, broker: detail },
        message: 'has a broker again',
      };
    case 'home':
      return {
        level: 'info',
        details: { event: 'broker-regained', thread, broker: detail },
        message: "is back at its own site's broker",
      };
    case 'waiting for a broker':
      return { level: 'warn', details: { event: 'broker-awaited', thread, reason: detail }, message: status };
    case 'error':
      return {
        level: 'error',
        details: { event: 'broker-error', thread, reason: detail },
        message: 'the broker refuses something',
      };
    default:
      return { level: 'info', details: { event: 'broker', thread, reason: detail }, message: status };
  }
}
