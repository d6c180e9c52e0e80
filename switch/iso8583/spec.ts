import type { ContentClass } from './content.ts';

/**
 * How an ISO 8583 dialect is written down: as data. The codec compiles a `MessageSpec` once and has no field numbers
 * of its own. A new dialect (BCD numerics, EBCDIC, hexadecimal bitmap) is another table; an encoding that no table
 * has used yet is one more member of the unions here and one more entry in `encodings.ts`, and the compiler names
 * the places. Encodings that are not implemented do not appear in the types.
 */
export interface MessageSpec {
  /** For people, in logs and profiles. */
  readonly name: string;
  /** First digit of the MTI: the edition. 0 is ISO 8583:1987. */
  readonly version: string;
  readonly mtiEncoding: TextEncodingName;
  readonly bitmapEncoding: BitmapEncodingName;
  /** By field number. A bit whose field is not here is a fault: nobody knows where such a field ends. */
  readonly fields: ReadonlyMap<number, FieldSpec>;
}

/** How characters lie in bytes. */
export type TextEncodingName = 'ascii';
/** How the digits before a variable-length field lie in bytes. */
export type LengthEncodingName = 'ascii';
/** How the 64 bits of a bitmap lie in bytes. */
export type BitmapEncodingName = 'binary';

export interface FieldSpec {
  readonly number: number;
  /** ISO's name of the data element, in camel case. */
  readonly name: string;
  readonly format: FieldFormat;
  readonly length: FieldLength;
  readonly sensitive: Sensitivity | undefined;
}

export type FieldFormat =
  | { readonly kind: 'text'; readonly content: ContentClass; readonly encoding: TextEncodingName }
  /** Raw bytes: PIN block, MAC. */
  | { readonly kind: 'bytes' }
  /** BER-TLV elements: DE 55. */
  | { readonly kind: 'tlv' };

/** Lengths count characters of text, and bytes of anything else. */
export type FieldLength =
  | { readonly kind: 'fixed'; readonly length: number }
  | {
      readonly kind: 'variable';
      /** 2: LLVAR, 3: LLLVAR. */
      readonly prefixDigits: 2 | 3;
      readonly prefixEncoding: LengthEncodingName;
      readonly minimum: number;
      readonly maximum: number;
    };

/**
 * Why a field may not be shown or kept in clear (PCI DSS 4.0.1): a card or account number, track data, PIN data,
 * material of cryptographic checks, or content that only a link's private agreement defines, which may be any of them.
 */
export type Sensitivity = 'pan' | 'track' | 'pin' | 'security' | 'private';

function text(content: ContentClass): FieldFormat {
  return { kind: 'text', content, encoding: 'ascii' };
}

function fixed(
  number: number,
  name: string,
  content: ContentClass,
  length: number,
  sensitive?: Sensitivity,
): FieldSpec {
  return { number, name, format: text(content), length: { kind: 'fixed', length }, sensitive };
}

function bytes(number: number, name: string, length: number, sensitive: Sensitivity): FieldSpec {
  return { number, name, format: { kind: 'bytes' }, length: { kind: 'fixed', length }, sensitive };
}

function upTo(prefixDigits: 2 | 3, maximum: number, minimum = 1): FieldLength {
  return { kind: 'variable', prefixDigits, prefixEncoding: 'ascii', minimum, maximum };
}

function llvar(
  number: number,
  name: string,
  content: ContentClass,
  maximum: number,
  sensitive?: Sensitivity,
): FieldSpec {
  return { number, name, format: text(content), length: upTo(2, maximum), sensitive };
}

function lllvar(
  number: number,
  name: string,
  content: ContentClass,
  maximum: number,
  sensitive?: Sensitivity,
): FieldSpec {
  return { number, name, format: text(content), length: upTo(3, maximum), sensitive };
}

/** LLLVAR ans..999 whose content ISO leaves to nations or to private agreement. */
function reserved(from: number, to: number, name: string): readonly FieldSpec[] {
  return Array.from({ length: to - from + 1 }, (_, index) =>
    lllvar(from + index, `${name}${from + index}`, 'ans', 999, 'private'),
  );
}

/**
 * The data elements of ISO 8583:1987. There is no field 1 (it says that a secondary bitmap follows) and no field 65
 * (a tertiary bitmap, which the edition has no fields for).
 *
 * Where usage is wider than the standard's text, the table follows usage: DE 37 and 38 may be padded with spaces,
 * DE 44 to 47 and track 1 hold any printable character, DE 55 is the EMV data (the standard reserves it).
 * A variable field is never empty, and a card number has at least 13 digits.
 */
const fields1987: readonly FieldSpec[] = [
  { ...llvar(2, 'primaryAccountNumber', 'n', 19, 'pan'), length: upTo(2, 19, 13) },
  fixed(3, 'processingCode', 'n', 6),
  fixed(4, 'amountTransaction', 'n', 12),
  fixed(5, 'amountSettlement', 'n', 12),
  fixed(6, 'amountCardholderBilling', 'n', 12),
  fixed(7, 'transmissionDateAndTime', 'n', 10),
  fixed(8, 'amountCardholderBillingFee', 'n', 8),
  fixed(9, 'conversionRateSettlement', 'n', 8),
  fixed(10, 'conversionRateCardholderBilling', 'n', 8),
  fixed(11, 'systemTraceAuditNumber', 'n', 6),
  fixed(12, 'timeLocalTransaction', 'n', 6),
  fixed(13, 'dateLocalTransaction', 'n', 4),
  fixed(14, 'dateExpiration', 'n', 4),
  fixed(15, 'dateSettlement', 'n', 4),
  fixed(16, 'dateConversion', 'n', 4),
  fixed(17, 'dateCapture', 'n', 4),
  fixed(18, 'merchantType', 'n', 4),
  fixed(19, 'acquiringInstitutionCountryCode', 'n', 3),
  fixed(20, 'primaryAccountNumberExtendedCountryCode', 'n', 3),
  fixed(21, 'forwardingInstitutionCountryCode', 'n', 3),
  fixed(22, 'pointOfServiceEntryMode', 'n', 3),
  fixed(23, 'cardSequenceNumber', 'n', 3),
  fixed(24, 'networkInternationalIdentifier', 'n', 3),
  fixed(25, 'pointOfServiceConditionCode', 'n', 2),
  fixed(26, 'pointOfServicePinCaptureCode', 'n', 2),
  fixed(27, 'authorizationIdentificationResponseLength', 'n', 1),
  fixed(28, 'amountTransactionFee', 'x+n', 9),
  fixed(29, 'amountSettlementFee', 'x+n', 9),
  fixed(30, 'amountTransactionProcessingFee', 'x+n', 9),
  fixed(31, 'amountSettlementProcessingFee', 'x+n', 9),
  llvar(32, 'acquiringInstitutionIdentificationCode', 'n', 11),
  llvar(33, 'forwardingInstitutionIdentificationCode', 'n', 11),
  llvar(34, 'primaryAccountNumberExtended', 'ns', 28, 'pan'),
  llvar(35, 'track2Data', 'z', 37, 'track'),
  lllvar(36, 'track3Data', 'z', 104, 'track'),
  fixed(37, 'retrievalReferenceNumber', 'anp', 12),
  fixed(38, 'authorizationIdentificationResponse', 'anp', 6),
  fixed(39, 'responseCode', 'an', 2),
  fixed(40, 'serviceRestrictionCode', 'an', 3),
  fixed(41, 'cardAcceptorTerminalIdentification', 'ans', 8),
  fixed(42, 'cardAcceptorIdentificationCode', 'ans', 15),
  fixed(43, 'cardAcceptorNameLocation', 'ans', 40),
  llvar(44, 'additionalResponseData', 'ans', 25, 'private'),
  llvar(45, 'track1Data', 'ans', 76, 'track'),
  lllvar(46, 'additionalDataIso', 'ans', 999, 'private'),
  lllvar(47, 'additionalDataNational', 'ans', 999, 'private'),
  lllvar(48, 'additionalDataPrivate', 'ans', 999, 'private'),
  fixed(49, 'currencyCodeTransaction', 'n', 3),
  fixed(50, 'currencyCodeSettlement', 'n', 3),
  fixed(51, 'currencyCodeCardholderBilling', 'n', 3),
  bytes(52, 'personalIdentificationNumberData', 8, 'pin'),
  fixed(53, 'securityRelatedControlInformation', 'n', 16, 'security'),
  lllvar(54, 'additionalAmounts', 'an', 120),
  {
    number: 55,
    name: 'integratedCircuitCardRelatedData',
    format: { kind: 'tlv' },
    length: upTo(3, 999),
    sensitive: 'security',
  },
  ...reserved(56, 56, 'reservedIso'),
  ...reserved(57, 59, 'reservedNational'),
  ...reserved(60, 63, 'reservedPrivate'),
  bytes(64, 'messageAuthenticationCode', 8, 'security'),
  fixed(66, 'settlementCode', 'n', 1),
  fixed(67, 'extendedPaymentCode', 'n', 2),
  fixed(68, 'receivingInstitutionCountryCode', 'n', 3),
  fixed(69, 'settlementInstitutionCountryCode', 'n', 3),
  fixed(70, 'networkManagementInformationCode', 'n', 3),
  fixed(71, 'messageNumber', 'n', 4),
  fixed(72, 'messageNumberLast', 'n', 4),
  fixed(73, 'dateAction', 'n', 6),
  fixed(74, 'creditsNumber', 'n', 10),
  fixed(75, 'creditsReversalNumber', 'n', 10),
  fixed(76, 'debitsNumber', 'n', 10),
  fixed(77, 'debitsReversalNumber', 'n', 10),
  fixed(78, 'transferNumber', 'n', 10),
  fixed(79, 'transferReversalNumber', 'n', 10),
  fixed(80, 'inquiriesNumber', 'n', 10),
  fixed(81, 'authorizationsNumber', 'n', 10),
  fixed(82, 'creditsProcessingFeeAmount', 'n', 12),
  fixed(83, 'creditsTransactionFeeAmount', 'n', 12),
  fixed(84, 'debitsProcessingFeeAmount', 'n', 12),
  fixed(85, 'debitsTransactionFeeAmount', 'n', 12),
  fixed(86, 'creditsAmount', 'n', 16),
  fixed(87, 'creditsReversalAmount', 'n', 16),
  fixed(88, 'debitsAmount', 'n', 16),
  fixed(89, 'debitsReversalAmount', 'n', 16),
  fixed(90, 'originalDataElements', 'n', 42),
  fixed(91, 'fileUpdateCode', 'an', 1),
  fixed(92, 'fileSecurityCode', 'an', 2),
  fixed(93, 'responseIndicator', 'an', 5),
  fixed(94, 'serviceIndicator', 'an', 7),
  fixed(95, 'replacementAmounts', 'an', 42),
  bytes(96, 'messageSecurityCode', 8, 'security'),
  fixed(97, 'amountNetSettlement', 'x+n', 17),
  fixed(98, 'payee', 'ans', 25),
  llvar(99, 'settlementInstitutionIdentificationCode', 'n', 11),
  llvar(100, 'receivingInstitutionIdentificationCode', 'n', 11),
  llvar(101, 'fileName', 'ans', 17),
  llvar(102, 'accountIdentification1', 'ans', 28, 'pan'),
  llvar(103, 'accountIdentification2', 'ans', 28, 'pan'),
  lllvar(104, 'transactionDescription', 'ans', 100),
  ...reserved(105, 111, 'reservedIso'),
  ...reserved(112, 119, 'reservedNational'),
  ...reserved(120, 127, 'reservedPrivate'),
  bytes(128, 'messageAuthenticationCode2', 8, 'security'),
];

/** ISO 8583:1987, ASCII fields, binary bitmap: the default of a link. */
export const iso87Ascii: MessageSpec = {
  name: 'ISO 8583:1987, ASCII, binary bitmap',
  version: '0',
  mtiEncoding: 'ascii',
  bitmapEncoding: 'binary',
  fields: new Map(fields1987.map((field) => [field.number, field])),
};
