import type { DrillRun, FinalFindings } from './figures.ts';
import { checksOf } from './limits.ts';
import type { DrillReport } from './report.ts';

/** For tests only: runs and reports in which everything is well. */

export const noContradictions = { approvedTwice: 0, others: 0 };
export const nothingWrong = { approvals: 1000, missing: 0, doubled: 0, contradicted: 0 };
export const goodEnd: FinalFindings = {
  quorum: nothingWrong,
  local: nothingWrong,
  wrongBalances: 0,
  wrongLocalBalances: 3,
  undelivered: 0,
};

export function goodRun(changes: Partial<DrillRun> = {}): DrillRun {
  return {
    run: 1,
    target: 'n1',
    groups: ['a', 'config'],
    firstApprovalMs: 700,
    gapMs: 720,
    othersGapMs: 40,
    returnGapMs: 90,
    returnedMs: 4000,
    requests: 8000,
    beyondDeadline: 0,
    waitedAtSilentNode: 0,
    inoperative: 0,
    latencyMs: { p50: 4, p99: 90, p999: 200, maximum: 240 },
    cutOff: undefined,
    slices: [
      { atMs: -100, requests: 50, approved: 20, p50Ms: 4, maximumMs: 30 },
      { atMs: 0, requests: 50, approved: 0, p50Ms: undefined, maximumMs: undefined },
      { atMs: 100, requests: 50, approved: 12, p50Ms: 400, maximumMs: 700 },
    ],
    failedAttempts: 0,
    faultyAnswers: 0,
    lateAnswers: 0,
    unanswered: 0,
    contradictions: { quorum: noContradictions, local: noContradictions },
    ownersChanged: [],
    rebuilt: { expected: 0, noticed: 0 },
    quorum: nothingWrong,
    local: nothingWrong,
    adopted: 0,
    voided: 0,
    compared: 'equal',
    ...changes,
  };
}

export function goodReport(changes: Partial<DrillReport> = {}): DrillReport {
  const runs = changes.runs ?? [goodRun(), goodRun({ run: 2, gapMs: 812 })];
  const checks = checksOf('takeover', 'table', runs, goodEnd);
  return {
    drill: 'kill',
    variant: '',
    expectation: 'takeover',
    cluster: 'drill',
    ownCluster: true,
    startedAt: '2026-05-01T12:00:00.000Z',
    durationMs: 60_000,
    seed: 7,
    conditions: { rate: 500, runs: runs.length, sampleTimings: true },
    limits: { set: 'table', text: 'as meant' },
    runs,
    final: goodEnd,
    checks,
    passed: checks.every(({ good }) => good),
    journals: undefined,
    ...changes,
  };
}
