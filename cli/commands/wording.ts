/**
 * problem: somebody has to look, or something is missing until it has healed. displaced: a group is not with the first
 * node of its order. note: worth knowing.
 */
export interface Finding {
  readonly kind: 'problem' | 'displaced' | 'note';
  readonly text: string;
}

export function problem(text: string): Finding[] {
  return [{ kind: 'problem', text }];
}

export function note(text: string): Finding[] {
  return [{ kind: 'note', text }];
}

export function listed(ids: readonly string[]): string {
  return ids.length < 2 ? ids.join('') : `${ids.slice(0, -1).join(', ')} and ${ids.at(-1) ?? ''}`;
}

/** `group a`, `groups a and b`. */
export function groupNames(names: readonly string[]): string {
  return `${names.length === 1 ? 'group' : 'groups'} ${listed(names)}`;
}

export function counted(count: number, singular: string, plural = `${singular}s`): string {
  return `${count} ${count === 1 ? singular : plural}`;
}

/** How long, in the largest unit that says something: `12 s`, `3 min`, `2 h`. */
export function lasting(durationMs: number): string {
  if (durationMs < 1000) return `${Math.round(durationMs)} ms`;
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}
