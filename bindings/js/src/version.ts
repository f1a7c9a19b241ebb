/** The version of this SDK; a bundle may ask for a newer one. */
export const VERSION = "0.1.0";
