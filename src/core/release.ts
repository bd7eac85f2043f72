/** The release of this software; a test holds it against package.json, which the bundled programs lack. */
export const release = '3.0.0';
