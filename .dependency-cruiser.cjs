// Imports run one way:
//   base <- store <- config-db <- { switch, replication, compare } <- cli <- { scripts, test }
// A test stands beside its code and follows its folder's rules for folders, but may open sockets and brokers itself.
const tests = '\\.test\\.ts$';
const testing = '(^test/|(\\.test|/testing|/arbitrary-[a-z-]+)\\.ts$)';

/** Files of `folder` import only from the folders `allowed`. */
function onlyFrom(folder, allowed) {
  return {
    name: `${folder}-imports-only-${[folder, ...allowed].join('-')}`,
    severity: 'error',
    from: { path: `^${folder}/` },
    to: {
      path: '^(base|store|config-db|switch|replication|compare|cli|scripts|test)/',
      pathNot: `^(${[folder, ...allowed].join('|')})/`,
    },
  };
}

module.exports = {
  forbidden: [
    onlyFrom('base', []),
    onlyFrom('store', ['base']),
    onlyFrom('config-db', ['base', 'store']),
    onlyFrom('switch', ['base', 'store', 'config-db']),
    onlyFrom('replication', ['base', 'store', 'config-db']),
    onlyFrom('compare', ['base', 'store', 'config-db']),
    onlyFrom('cli', ['base', 'store', 'config-db', 'switch', 'replication', 'compare']),
    {
      name: 'scripts-and-test-are-imported-by-none',
      severity: 'error',
      from: { path: '^scripts/', pathNot: tests },
      to: { path: '^test/' },
    },
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'tests-are-imported-by-none',
      severity: 'error',
      from: { pathNot: testing },
      to: { path: testing },
    },
    {
      name: 'sqlite-only-in-store-and-config-db',
      severity: 'error',
      from: { pathNot: `^(store|config-db)/|^scripts/bench|${tests}` },
      to: { path: '(^|/)better-sqlite3(/|$)' },
    },
    {
      name: 'nats-only-in-its-files',
      severity: 'error',
      from: { pathNot: `^replication/nats-bus\\.ts$|^cli/cluster/secrets\\.ts$|^cli/operator-bus\\.ts$|${tests}` },
      to: { path: '(^|/)@nats-io/' },
    },
    {
      name: 'sockets-only-in-their-files',
      severity: 'error',
      from: {
        pathNot: `^switch/acquirer-server\\.ts$|^cli/node/monitor\\.ts$|^cli/acquirer/|^cli/cluster/preflight\\.ts$|^cli/drill/delay-proxy\\.ts$|^scripts/bench|${testing}`,
      },
      to: { path: '^(node:)?(net|tls|dgram|http|https|http2)$' },
    },
    {
      name: 'nothing-unresolvable',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'no-development-packages-in-what-runs',
      severity: 'error',
      from: { path: '^(base|store|config-db|switch|replication|compare|cli)/', pathNot: testing },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      extensions: ['.ts', '.js', '.mjs'],
      conditionNames: ['import', 'require', 'node', 'types'],
    },
  },
};
