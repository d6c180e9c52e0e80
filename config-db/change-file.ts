import { z } from 'zod';

import { configurationSchemas, keySchemas, type ConfigurationChange, type ConfigurationTable } from './rows.ts';
import { readYamlDocument } from './yaml-document.ts';

/** A change as a file gives it; `replaces` where the file says which version it was written for. */
export interface FileChange {
  readonly change: ConfigurationChange;
  readonly replaces: number | undefined;
}

const replaces = z.int('expected the version of a row').min(0).optional();

const tables = Object.fromEntries(
  Object.entries(configurationSchemas).map(([table, schema]) => [
    table,
    z.array(schema.extend({ replaces })).default([]),
  ]),
);

const deletions = Object.fromEntries(
  Object.entries(keySchemas).map(([table, schema]) => [table, z.array(schema.extend({ replaces })).default([])]),
);

type Rows = Readonly<Record<string, readonly ({ readonly replaces?: number | undefined } & object)[]>>;

const schema = z.strictObject({ ...tables, delete: z.strictObject(deletions).optional() });

/**
 * Changes of the configuration from YAML text: the tables' names as keys with lists of rows to be there, and below
 * `delete` the same with keys of rows to be gone. A row may say which version it `replaces`.
 * Throws CONFIGURATION_FILE_INVALID with line and path of every fault; an unknown key is a fault.
 */
export function readChangeFile(text: string, fileName: string): FileChange[] {
  const { delete: gone, ...rows } = readYamlDocument(
    text,
    fileName,
    schema as unknown as z.ZodType<Rows & { readonly delete?: Rows }>,
    'CONFIGURATION_FILE_INVALID',
  );
  return [
    ...changesOfTables(rows, (table, row) => ({ table, operation: 'put', row })),
    ...changesOfTables(gone ?? {}, (table, key) => ({ table, operation: 'delete', key })),
  ];
}

function changesOfTables(rows: Rows, make: (table: string, content: object) => object): FileChange[] {
  // In the schemas' order: groups before the ranges that name them.
  return (Object.keys(configurationSchemas) as ConfigurationTable[]).flatMap((table) =>
    (rows[table] ?? []).map(({ replaces: version, ...content }) => ({
      // Row and key have just been read by the schema of this very table.
      change: make(table, content) as ConfigurationChange,
      replaces: version,
    })),
  );
}
