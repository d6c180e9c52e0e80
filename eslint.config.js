import tseslint from 'typescript-eslint';

const sleepsAndChance =
  'Time, timers and chance come from base/clock.ts and base/random.ts, so that tests can give their own.';

const noDirectTime = [
  { selector: "MemberExpression[object.name='Date'][property.name='now']", message: sleepsAndChance },
  { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: sleepsAndChance },
  { selector: "CallExpression[callee.name='Date']", message: sleepsAndChance },
  { selector: "MemberExpression[object.name='Math'][property.name='random']", message: sleepsAndChance },
  { selector: "MemberExpression[object.name='performance'][property.name='now']", message: sleepsAndChance },
  { selector: "MemberExpression[object.name='process'][property.name='hrtime']", message: sleepsAndChance },
  { selector: "MemberExpression[property.name='getRandomValues']", message: sleepsAndChance },
];

const timerNames = ['setTimeout', 'setInterval', 'setImmediate'].map((name) => ({ name, message: sleepsAndChance }));

export default tseslint.config(
  { ignores: ['node_modules/', 'data/', 'reports/', 'coverage/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: 'error',
      'no-console': 'error',
      'no-restricted-syntax': ['error', ...noDirectTime],
      'no-restricted-globals': ['error', ...timerNames],
      '@typescript-eslint/no-restricted-imports': [
        'error',
        {
          paths: [
            { name: 'node:timers', message: sleepsAndChance },
            { name: 'node:timers/promises', message: sleepsAndChance },
            {
              name: 'node:crypto',
              importNames: ['randomBytes', 'randomInt', 'randomUUID', 'randomFill', 'randomFillSync', 'webcrypto'],
              message: sleepsAndChance,
            },
          ],
        },
      ],
      // Numbers and booleans in messages are plain; objects are not.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // process.env['NAME']: an index signature that the compiler asks to be read so.
      '@typescript-eslint/dot-notation': 'off',
      // An empty function says "nothing to do" as well as a comment would.
      '@typescript-eslint/no-empty-function': 'off',
    },
  },
  {
    files: ['base/real.ts'],
    rules: {
      'no-restricted-syntax': 'off',
      'no-restricted-globals': 'off',
      '@typescript-eslint/no-restricted-imports': 'off',
    },
  },
  // A script talks to a person.
  { files: ['scripts/**/*.ts'], rules: { 'no-console': 'off' } },
  {
    files: ['**/*.test.ts'],
    rules: {
      // node:test's functions return promises that the runner itself waits for.
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', package: 'node:test', name: ['test', 'it', 'describe', 'suite', 'before', 'after'] },
          ],
        },
      ],
      '@typescript-eslint/require-await': 'off',
    },
  },
);
