import type Database from 'better-sqlite3';

export type Row = Record<string, string | bigint>;

/** A statement's text, and what it is run with. */
export interface Write<Of> {
  readonly sql: string;
  readonly values: (row: Of) => unknown[];
}

/**
 * A table of the fold and the rows that the program has of it, in one definition: for each property of a row its column, as
 * CREATE TABLE has it. Columns in `_minor` are money, which is bigint; other integers are numbers.
 */
export class TableShape<Of extends object> {
  readonly name: string;
  readonly schema: string;
  readonly #columns: readonly {
    readonly property: keyof Of & string;
    readonly column: string;
    readonly isNumber: boolean;
  }[];

  /** `constraints`: what follows the columns in CREATE TABLE. */
  constructor(name: string, columns: Readonly<Record<keyof Of & string, string>>, constraints = '') {
    this.name = name;
    const definitions = Object.entries<string>(columns);
    this.#columns = definitions.map(([property, definition]) => {
      const column = /^[a-z_]+/.exec(definition)?.[0] ?? '';
      return {
        property: property as keyof Of & string,
        column,
        isNumber: definition.includes(' INTEGER ') && !column.endsWith('_minor'),
      };
    });
    const lines = [...definitions.map(([, definition]) => definition), ...(constraints === '' ? [] : [constraints])];
    this.schema = `CREATE TABLE IF NOT EXISTS ${name} (\n${lines.join(',\n')}\n) STRICT, WITHOUT ROWID;\n`;
  }

  /** A row that was read with safe integers. */
  toRow(read: Row): Of {
    const row: Record<string, unknown> = {};
    for (const { property, column, isNumber } of this.#columns) {
      row[property] = isNumber ? Number(read[column]) : read[column];
    }
    return row as Of;
  }

  /** Rows of a query that gives all columns of the table. */
  select(database: Database.Database, rest: string): (...parameters: unknown[]) => Of[] {
    const statement = database
      .prepare<unknown[], Row>(`SELECT ${this.name}.* FROM ${this.name} ${rest}`)
      .safeIntegers(true);
    return (...parameters) => statement.all(...parameters).map((row) => this.toRow(row));
  }

  /** The only row of such a query, or its first. */
  find(database: Database.Database, rest: string): (...parameters: unknown[]) => Of | undefined {
    const statement = database
      .prepare<unknown[], Row>(`SELECT ${this.name}.* FROM ${this.name} ${rest}`)
      .safeIntegers(true);
    return (...parameters) => {
      const row = statement.get(...parameters);
      return row === undefined ? undefined : this.toRow(row);
    };
  }

  /** `conflict`: an upsert's clause. */
  insert(conflict = ''): Write<Of> {
    const places = this.#columns.map(() => '?').join(', ');
    return this.#write(
      `INSERT INTO ${this.name} VALUES (${places}) ${conflict}`,
      this.#columns.map(({ property }) => property),
    );
  }

  /** Writes these properties of the row that has those. */
  update(properties: readonly (keyof Of & string)[], of: readonly (keyof Of & string)[]): Write<Of> {
    const assigned = (names: readonly (keyof Of & string)[], between: string): string =>
      names.map((name) => `${this.#columnOf(name)} = ?`).join(between);
    return this.#write(`UPDATE ${this.name} SET ${assigned(properties, ', ')} WHERE ${assigned(of, ' AND ')}`, [
      ...properties,
      ...of,
    ]);
  }

  #columnOf(property: string): string {
    const found = this.#columns.find((each) => each.property === property);
    if (found === undefined) throw new Error(`table ${this.name} has no ${property}`);
    return found.column;
  }

  #write(sql: string, properties: readonly (keyof Of & string)[]): Write<Of> {
    return { sql, values: (row) => properties.map((property) => row[property]) };
  }
}

/** Runs a write on a connection that may. */
export function prepareWrite<Of>(database: Database.Database, { sql, values }: Write<Of>): (row: Of) => number {
  const statement = database.prepare(sql);
  return (row) => statement.run(...values(row)).changes;
}
