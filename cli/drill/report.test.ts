import assert from 'node:assert/strict';
import { test } from 'node:test';

import { reportHtml } from './html.ts';
import { checkLines, headLine, reportJson, reportText, runLine, summaryLines } from './report.ts';
import { goodReport, goodRun } from './testing.ts';

test('the lines of a drill make a table of at most 120 columns, with median and most', () => {
  for (const expectation of ['takeover', 'site-takeover', 'undisturbed', 'unnoticed', 'none'] as const) {
    const runs = [goodRun(), goodRun({ firstApprovalMs: undefined, gapMs: 12_345, othersGapMs: undefined })];
    const lines = [
      headLine(expectation),
      ...runs.map((each) => runLine(expectation, each)),
      ...summaryLines(expectation, runs),
    ];
    for (const line of lines) {
      assert.ok(line.length <= 120 && line.length === headLine(expectation).length, line);
    }
  }
  const [median, most] = summaryLines('takeover', [goodRun(), goodRun({ firstApprovalMs: undefined })]);
  assert.match(median ?? '', /^ +med never +720 /);
  assert.match(most ?? '', /^ +most never +720 /);
  assert.deepEqual(checkLines([{ claim: 'x', measured: '3', good: false }]), ['FAILED x: 3']);
});

test('a report says what was drilled, how often, under which limits, and how it ended', () => {
  const text = reportText(goodReport());
  assert.match(
    text,
    /^kill of n1, under 500 requests\/s, 2 runs\n2026-05-01T12:00:00.000Z, seed 7, cluster "drill", sta/,
  );
  assert.match(text, /\nlimits: as meant\nok {5}runs were made: 2\n/);
  assert.match(text, /\nPASSED\n$/);
  assert.match(reportText(goodReport({ passed: false, journals: 'there' })), /: there\nFAILED\n$/);
  assert.deepEqual(JSON.parse(reportJson(goodReport())), JSON.parse(JSON.stringify(goodReport())));
});

test('a page of reports is whole by itself: plots of gaps and latencies, no script, nothing from elsewhere', () => {
  const never = goodReport({
    drill: 'site',
    runs: [goodRun({ firstApprovalMs: undefined, slices: [] })],
    passed: false,
  });
  const page = reportHtml([goodReport({ variant: '<b>"odd"&' }), never]);
  assert.equal(page.match(/<svg /g)?.length, 3);
  assert.equal(page.match(/class="bar"/g)?.length, 3);
  assert.match(page, /run 2: 812 ms/);
  assert.match(page, /&lt;b&gt;&quot;odd&quot;&amp;/);
  assert.match(page, /1 of 2 failed/);
  assert.doesNotMatch(page, /<script|https?:|src=|@import|NaN|undefined/);
});

test('a report holds no card number, whatever it was made of', () => {
  const report = goodReport({ runs: [goodRun({ target: 'n4000001234567899' })] });
  for (const text of [reportJson(report), reportHtml([report])]) assert.doesNotMatch(text, /4000001234567899/);
});
