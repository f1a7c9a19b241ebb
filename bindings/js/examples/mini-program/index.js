// The page's own file: what stands between the mini-program and page.ts.
const { homePage } = require("./page");

Page(homePage(wx, { url: "https://example.com/shop.xrec.zip", trustedKeys: ["ed25519:..."] }));
