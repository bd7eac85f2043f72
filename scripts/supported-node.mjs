// Ends the process with one line on a Node.js that cannot run this project. Imported first by each script and, as a copy
// in dist/, by each program, before anything is loaded that an older version cannot read: so only plain syntax here.
const oldestMinor = { 20: 19, 22: 12 };

export function isSupported(version) {
  const numbers = version.split('.').map(Number);
  const oldest = oldestMinor[numbers[0]];
  return oldest === undefined ? numbers[0] > 22 : numbers[1] >= oldest;
}

if (!isSupported(process.versions.node)) {
  console.error(
    'Cannot run Filetracker: this is Node.js ' +
      process.versions.node +
      '; use 20.19, 22.12 or newer, 24 or 26',
  );
  process.exit(1);
}
