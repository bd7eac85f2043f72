/** Whether a version of Node.js, as "22.12.0", can run this project. */
export function isSupported(version: string): boolean;
