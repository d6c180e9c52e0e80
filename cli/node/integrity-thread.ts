import { parentPort, workerData } from 'node:worker_threads';

import { integrityFaults } from '../../store/integrity.ts';

/* Looks at every page of one file and ends: one long step of SQLite, which nobody else's calls wait behind. */
parentPort?.postMessage(integrityFaults(String(workerData)));
