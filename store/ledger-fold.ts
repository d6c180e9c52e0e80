import type { Fold } from './group-file.ts';
import { applyToLedger } from './ledger.ts';
import { ledgerSchema, SqliteLedger } from './ledger-sqlite.ts';

/** The fold of a card group: cards, transactions, attempts, tombstones, resolutions, approvals in stand-in. */
export const ledgerFold: Fold = {
  schema: ledgerSchema,
  open(database, group) {
    const ledger = new SqliteLedger(database);
    return (index, term, entry) => {
      applyToLedger(ledger, group, index, term, entry);
    };
  },
};
