"""§3.1, Fig. 2: curation of public question banks, from files as published to items that may be trained on."""
