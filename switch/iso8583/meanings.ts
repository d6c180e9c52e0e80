/** What the codes of ISO 8583:1987 mean, in words: for people only. No decision reads these texts. */

/** DE 39. */
export const responseCodes = {
  '00': 'approved',
  '05': 'do not honour',
  '10': 'approved in part',
  '12': 'invalid transaction',
  '13': 'invalid amount',
  '14': 'no such card',
  '25': 'original not found',
  '30': 'format error',
  '41': 'lost card',
  '43': 'stolen card',
  '51': 'not sufficient funds',
  '54': 'expired card',
  '55': 'wrong PIN',
  '57': 'not permitted to card',
  '58': 'not permitted to terminal',
  '59': 'suspected fraud',
  '61': 'over amount limit',
  '62': 'restricted card',
  '65': 'over count limit',
  '68': 'late response',
  '75': 'PIN tries exceeded',
  '91': 'issuer or switch inoperative',
  '92': 'no route',
  '94': 'duplicate',
  '96': 'system malfunction',
} as const;

/** DE 3, first two digits. */
export const processingCodes = {
  '00': 'purchase',
  '01': 'cash',
  '09': 'purchase with cash back',
  '20': 'refund',
  '31': 'balance inquiry',
  '38': 'card verification',
} as const;

/** MTI, second digit. */
const classes: Readonly<Record<string, string>> = {
  '1': 'authorization',
  '2': 'financial',
  '3': 'file action',
  '4': 'reversal',
  '5': 'reconciliation',
  '6': 'administrative',
  '7': 'fee collection',
  '8': 'network management',
};

/** MTI, third digit. */
const functions: Readonly<Record<string, string>> = {
  '0': 'request',
  '1': 'response',
  '2': 'advice',
  '3': 'advice response',
  '4': 'notification',
};

/** Of four digits: `0101 authorization request, repeat`. An MTI with reserved digits is shown without words. */
export function describeMti(mti: string): string {
  const name = classes[mti.charAt(1)];
  const action = functions[mti.charAt(2)];
  if (name === undefined || action === undefined) return mti;
  return `${mti} ${name} ${action}${Number(mti.charAt(3)) % 2 === 1 ? ', repeat' : ''}`;
}
