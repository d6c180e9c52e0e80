/** A promise was broken: the simulation's finding. */
export class Violation extends Error {}
