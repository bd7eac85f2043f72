/** Where the embedded catalog keeps its parts, below the folder of the store. */
export interface EmbeddedFolders {
  readonly journal: string;
  readonly catalog: string;
}
