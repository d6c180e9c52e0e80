import { renameSync } from 'node:fs';
import { dirname } from 'node:path';

import { describeError } from '../base/errors.ts';
import type { LogPosition } from './entry.ts';
import type { GroupFile } from './group-file.ts';
import type { SnapshotEnd } from './group-snapshot.ts';
import { incomingFile, nextGeneration, syncPath, type InstallStep } from './snapshot-install.ts';
import { SnapshotTarget } from './snapshot-target.ts';
import type { SnapshotRequest } from './writer.ts';

export type IntakeOutcome =
  | { readonly kind: 'begun' | 'nothing' }
  | { readonly kind: 'written'; readonly chunk: number }
  /** The group's file is as it was. */
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'installed'; readonly file: GroupFile }
  /** Which file is the group's will be known when it is opened the next time: nothing may be written until then. */
  | { readonly kind: 'failed'; readonly error: unknown };

/** Receives one group's snapshots, one at a time, and puts the one that is whole in the place of the group's file. */
export class SnapshotIntake {
  readonly #onStep: (step: InstallStep) => void;
  #incoming: { readonly transfer: string; readonly target: SnapshotTarget } | undefined;

  constructor(onStep: (step: InstallStep) => void) {
    this.#onStep = onStep;
  }

  take(file: GroupFile, request: SnapshotRequest): IntakeOutcome {
    if (request.kind === 'begin') return this.#refusing(() => this.#begin(file, request));
    const incoming = this.#incoming;
    if (incoming?.transfer !== request.transfer) {
      return request.kind === 'abandon'
        ? { kind: 'nothing' }
        : { kind: 'refused', reason: 'no such snapshot was begun' };
    }
    switch (request.kind) {
      case 'write':
        return this.#refusing(() => {
          incoming.target.write(request.chunk, request.bytes);
          return { kind: 'written', chunk: request.chunk };
        });
      case 'install':
        return this.#install(file, incoming.target, request.end);
      case 'abandon':
        this.discard();
        return { kind: 'nothing' };
    }
  }

  /** Throws away what has been received of a snapshot. */
  discard(): void {
    this.#incoming?.target.discard();
    this.#incoming = undefined;
  }

  #begin(file: GroupFile, request: SnapshotRequest & { kind: 'begin' }): IntakeOutcome {
    this.discard();
    const { transfer, header } = request;
    const objection = objectionTo(file, header.position);
    if (objection !== undefined) return { kind: 'refused', reason: objection };
    this.#incoming = { transfer, target: SnapshotTarget.begin(file.path, file.identity, header) };
    return { kind: 'begun' };
  }

  /** The steps of snapshot-install.ts. */
  #install(file: GroupFile, target: SnapshotTarget, end: SnapshotEnd): IntakeOutcome {
    const written = this.#refusing(() => {
      const objection = objectionTo(file, target.header.position);
      if (objection !== undefined) return { kind: 'refused', reason: objection };
      target.finish(end);
      return { kind: 'nothing' };
    });
    if (written.kind === 'refused') {
      this.discard();
      return written;
    }
    this.#incoming = undefined;
    this.#onStep('written');
    const path = nextGeneration(file.path);
    let replacement: GroupFile | undefined;
    const steps: readonly (readonly [InstallStep, () => void])[] = [
      [
        'renamed',
        () => {
          renameSync(incomingFile(file.path), path);
        },
      ],
      [
        'folder synced',
        () => {
          syncPath(dirname(path));
        },
      ],
      [
        'closed',
        () => {
          file.close();
        },
      ],
      [
        'opened',
        () => {
          replacement = file.reopened();
        },
      ],
    ];
    for (const [step, carryOut] of steps) {
      try {
        carryOut();
      } catch (error) {
        return { kind: 'failed', error };
      }
      this.#onStep(step);
    }
    return replacement === undefined ? { kind: 'nothing' } : { kind: 'installed', file: replacement };
  }

  /** Whatever is thrown is about the snapshot, which is thrown away: the group's own file is not touched. */
  #refusing(action: () => IntakeOutcome): IntakeOutcome {
    try {
      return action();
    } catch (error) {
      this.discard();
      return { kind: 'refused', reason: describeError(error) };
    }
  }
}

/**
 * Why the snapshot may not replace the file: the fold is as far, or the log goes on from there. In its tail may be
 * entries that this member has acknowledged, and that may be committed by now: they would be lost.
 */
function objectionTo(file: GroupFile, { index, hash }: LogPosition): string | undefined {
  if (index <= file.applied) return `the fold is at ${file.applied}, the snapshot at ${index}`;
  if (file.position(index)?.hash === hash) return `the log holds entry ${index} of the snapshot`;
  return undefined;
}
