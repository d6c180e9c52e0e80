import { z } from 'zod';

import { SwitchError } from '../../base/errors.ts';
import { Pan } from '../../base/pan.ts';
import type { CallRequest } from './peer-calls.ts';

/** Who asks, for history and log. */
export const by = z.string().min(1).max(100);

export const pan = z.string().transform((text, context) => {
  const parsed = Pan.parse(text);
  if (parsed !== undefined) return parsed;
  context.addIssue('expected a card number of 13 to 19 digits');
  return z.NEVER;
});

/** What a call was given, as its schema has it. Throws CALL_INVALID, without the value. */
export function parse<Schema extends z.ZodType>(
  schema: Schema,
  { method, parameters: given }: CallRequest,
): z.infer<Schema> {
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new SwitchError('CALL_INVALID', `${method}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}`);
}
