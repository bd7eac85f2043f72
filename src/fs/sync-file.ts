import { open } from 'node:fs/promises';

/** Makes the bytes of a file survive power loss, whoever wrote them. @throws system errors as they come. */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
