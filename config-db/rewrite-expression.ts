import { formatProblem } from './rows.ts';
import { SwitchError } from '../base/errors.ts';
import type { FailoverOrder } from './failover-order.ts';

/**
 * The expressions of rewrite rules. An expression is one of
 *
 *     row.failover_order          a reference: a string; row, derived, target, origin, topology, maintenance are all
 *     { text: own }               a literal text
 *     7, true                     a literal number (an integer) or truth
 *     { operator: argument }      one operator, one argument or a list of as many as it takes
 *
 * Every expression has a type that is known when the rule set is compiled, so evaluation cannot fail. A value that
 * does not exist (a position in an order that lacks the node, the site of a node no longer in the topology) is
 * null, and an operator given null gives null: the column stays unset and the rule set is refused for it.
 * There are no loops, no state, no clock and no chance; size and depth are limited; so evaluation always ends.
 */
export type ValueType = 'text' | 'number' | 'truth' | 'order';
export type Value = string | number | boolean | FailoverOrder | null;

export interface Scope {
  readonly row: Readonly<Record<string, Value>>;
  readonly target: Readonly<Record<'id' | 'site', string | null>>;
  readonly origin: Readonly<Record<'id' | 'site', string | null>>;
  /** Columns that rules above have set. */
  readonly derived: Readonly<Record<string, Value>>;
  /** Node ids in file order. */
  readonly nodes: FailoverOrder;
  /** Those that operators have taken out of service. */
  readonly maintenance: FailoverOrder;
  readonly siteOf: (node: string) => string | null;
}

export interface Expression {
  readonly type: ValueType;
  readonly readsOrigin: boolean;
  readonly evaluate: (scope: Scope) => Value;
}

/** The types of `row`'s columns in the table that a rule is compiled for. */
export type RowTypes = Readonly<Record<string, ValueType>>;

/** Depth of nesting, and number of expressions in a whole rule set. */
const maximumDepth = 8;
const maximumExpressions = 2_000;

interface Operator {
  /** 'same': any type, the same for all; a single-element list with `rest`: that type any number of times. */
  readonly parameters: readonly (ValueType | 'same')[];
  readonly rest?: true;
  readonly result: ValueType;
  readonly apply: (values: readonly Exclude<Value, null>[], scope: Scope) => Value;
}

// The casts in `apply` are safe: compile() has checked the types of the arguments against `parameters`.
const text = (value: Value | undefined): string => value as string;
const order = (value: Value | undefined): FailoverOrder => value as FailoverOrder;

const operators: Readonly<Record<string, Operator>> = {
  /** Rank of a node in an order, from 1. */
  position: {
    parameters: ['text', 'order'],
    result: 'number',
    apply: ([node, nodes]) => {
      const index = order(nodes).indexOf(text(node));
      return index < 0 ? null : index + 1;
    },
  },
  /** Those of an order that come before a node. */
  before: {
    parameters: ['text', 'order'],
    result: 'order',
    apply: ([node, nodes]) => {
      const index = order(nodes).indexOf(text(node));
      return index < 0 ? null : order(nodes).slice(0, index);
    },
  },
  /** Those of an order that come after a node. */
  after: {
    parameters: ['text', 'order'],
    result: 'order',
    apply: ([node, nodes]) => {
      const index = order(nodes).indexOf(text(node));
      return index < 0 ? null : order(nodes).slice(index + 1);
    },
  },
  /** An order with a node left out. */
  without: {
    parameters: ['order', 'text'],
    result: 'order',
    apply: ([nodes, node]) => order(nodes).filter((item) => item !== text(node)),
  },
  /** Those of an order that are not in another one. */
  outside: {
    parameters: ['order', 'order'],
    result: 'order',
    apply: ([nodes, others]) => order(nodes).filter((node) => !order(others).includes(node)),
  },
  /** An order by distance from a node: the node itself, its site, the other sites; else as it was. */
  nearest: {
    parameters: ['order', 'text'],
    result: 'order',
    apply: ([nodes, from], scope) => {
      const distance = (node: string): number =>
        node === text(from) ? 0 : scope.siteOf(node) === scope.siteOf(text(from)) ? 1 : 2;
      return [0, 1, 2].flatMap((each) => order(nodes).filter((node) => distance(node) === each));
    },
  },
  /** An order with one of its nodes brought to the front. */
  put_first: {
    parameters: ['order', 'text'],
    result: 'order',
    apply: ([nodes, node]) => {
      const rest = order(nodes).filter((each) => each !== text(node));
      return rest.length === order(nodes).length ? rest : [text(node), ...rest];
    },
  },
  /** So many hundredths of an amount, rounded down. */
  percent: {
    parameters: ['number', 'number'],
    result: 'number',
    apply: ([amount, share]) => Math.floor(((amount as number) * (share as number)) / 100),
  },
  /** Those of an order that stand at a site. */
  at_site: {
    parameters: ['order', 'text'],
    result: 'order',
    apply: ([nodes, site], scope) => order(nodes).filter((node) => scope.siteOf(node) === text(site)),
  },
  /** The first node of an order; '' when it is empty. */
  first: { parameters: ['order'], result: 'text', apply: ([nodes]) => order(nodes)[0] ?? '' },
  contains: {
    parameters: ['order', 'text'],
    result: 'truth',
    apply: ([nodes, node]) => order(nodes).includes(text(node)),
  },
  /** Whether two nodes stand at one site. */
  same_site: {
    parameters: ['text', 'text'],
    result: 'truth',
    apply: ([one, other], scope) => {
      const site = scope.siteOf(text(one));
      return site === null ? null : site === scope.siteOf(text(other));
    },
  },
  equals: {
    parameters: ['same', 'same'],
    result: 'truth',
    apply: ([one, other]) => (Array.isArray(one) ? order(one).join('>') === order(other).join('>') : one === other),
  },
  not: { parameters: ['truth'], result: 'truth', apply: ([value]) => value !== true },
  all: {
    parameters: ['truth'],
    rest: true,
    result: 'truth',
    apply: (values) => values.every((value) => value === true),
  },
  any: {
    parameters: ['truth'],
    rest: true,
    result: 'truth',
    apply: (values) => values.some((value) => value === true),
  },
};

const references: Readonly<Record<string, { readonly type: ValueType; readonly read: (scope: Scope) => Value }>> = {
  'target.id': { type: 'text', read: (scope) => scope.target.id },
  'target.site': { type: 'text', read: (scope) => scope.target.site },
  'origin.id': { type: 'text', read: (scope) => scope.origin.id },
  'origin.site': { type: 'text', read: (scope) => scope.origin.site },
  'topology.nodes': { type: 'order', read: (scope) => scope.nodes },
  'maintenance.nodes': { type: 'order', read: (scope) => scope.maintenance },
};

/** Compiles expressions of one table; counts them against the rule set's limit. */
export class ExpressionCompiler {
  readonly #rowTypes: RowTypes;
  readonly #budget: { expressions: number };
  #derivedTypes: RowTypes = {};

  constructor(rowTypes: RowTypes, budget: { expressions: number }) {
    this.#rowTypes = rowTypes;
    this.#budget = budget;
  }

  /** From here on expressions may refer to these columns: rules above set them. */
  define(columns: RowTypes): void {
    this.#derivedTypes = { ...this.#derivedTypes, ...columns };
  }

  /** Throws REWRITE_RULES_INVALID with the path of what is wrong. */
  compile(source: unknown, expected: ValueType, path: string): Expression {
    const expression = this.#compile(source, path, 1);
    if (expression.type !== expected) throw invalid(path, `expected ${expected}, this is ${expression.type}`);
    return expression;
  }

  #compile(source: unknown, path: string, depth: number): Expression {
    if (depth > maximumDepth) throw invalid(path, `nested deeper than ${maximumDepth}`);
    if (++this.#budget.expressions > maximumExpressions) {
      throw invalid(path, `the rule set has more than ${maximumExpressions} expressions`);
    }
    if (typeof source === 'string') return this.#reference(source, path);
    if (typeof source === 'boolean') return literal('truth', source);
    if (typeof source === 'number') {
      if (!Number.isSafeInteger(source)) throw invalid(path, 'expected an integer');
      return literal('number', source);
    }
    if (typeof source !== 'object' || source === null || Array.isArray(source)) {
      throw invalid(path, 'expected a reference, a literal or an operator');
    }
    const [entry, ...others] = Object.entries(source);
    if (entry === undefined || others.length > 0) throw invalid(path, 'expected exactly one operator');
    const [name, argument] = entry as [string, unknown];
    if (name === 'text') {
      if (typeof argument !== 'string') throw invalid(`${path}.text`, 'expected a literal text');
      return literal('text', argument);
    }
    const operator = Object.hasOwn(operators, name) ? operators[name] : undefined;
    if (operator === undefined) throw invalid(`${path}.${name}`, 'unknown operator');
    return this.#operation(operator, argument, `${path}.${name}`, depth);
  }

  #reference(name: string, path: string): Expression {
    if (name.startsWith('row.')) {
      const column = name.slice('row.'.length);
      const type = Object.hasOwn(this.#rowTypes, column) ? this.#rowTypes[column] : undefined;
      if (type === undefined) throw invalid(path, `unknown column of the row: ${column}`);
      return { type, readsOrigin: false, evaluate: (scope) => scope.row[column] ?? null };
    }
    if (name.startsWith('derived.')) {
      const column = name.slice('derived.'.length);
      const type = Object.hasOwn(this.#derivedTypes, column) ? this.#derivedTypes[column] : undefined;
      if (type === undefined) throw invalid(path, `no rule above sets the column ${column}`);
      return { type, readsOrigin: false, evaluate: (scope) => scope.derived[column] ?? null };
    }
    const reference = Object.hasOwn(references, name) ? references[name] : undefined;
    if (reference === undefined) {
      const clock = /clock|time|now|date/i.test(name) ? ': rules read no clock, or nodes would differ' : '';
      throw invalid(path, `unknown reference: ${name} (a literal is { text: … })${clock}`);
    }
    return { type: reference.type, readsOrigin: name.startsWith('origin.'), evaluate: reference.read };
  }

  #operation(operator: Operator, argument: unknown, path: string, depth: number): Expression {
    const sources: readonly unknown[] = Array.isArray(argument) ? argument : [argument];
    const wanted = operator.rest ? sources.map(() => operator.parameters[0]) : operator.parameters;
    if (sources.length !== wanted.length || sources.length === 0) {
      throw invalid(path, `expected ${operator.rest ? 'at least one argument' : `arguments: ${wanted.join(', ')}`}`);
    }
    const values = sources.map((source, index) =>
      this.#compile(source, Array.isArray(argument) ? `${path}[${index}]` : path, depth + 1),
    );
    values.forEach((value, index) => {
      const type = wanted[index] === 'same' ? values[0]?.type : wanted[index];
      if (value.type !== type) throw invalid(`${path}[${index}]`, `expected ${String(type)}, this is ${value.type}`);
    });
    return {
      type: operator.result,
      readsOrigin: values.some((value) => value.readsOrigin),
      evaluate: (scope) => {
        const present: Exclude<Value, null>[] = [];
        for (const expression of values) {
          const value = expression.evaluate(scope);
          if (value === null) return null;
          present.push(value);
        }
        return operator.apply(present, scope);
      },
    };
  }
}

function literal(type: ValueType, value: Value): Expression {
  return { type, readsOrigin: false, evaluate: () => value };
}

export function invalid(path: string, message: string): SwitchError {
  return new SwitchError('REWRITE_RULES_INVALID', formatProblem({ path, message }));
}
