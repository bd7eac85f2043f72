const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** A size for people: `1.4 GiB`. */
export function formatSize(sizeBytes: number): string {
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, sizeBytes)) / 10));
  const value = sizeBytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}
