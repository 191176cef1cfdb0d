"""Answers to everyday questions that the demo's real language model is fine-tuned on (CC0).

Written for the demo: short, complete, and with a refusal that says what would be better where one is
due. So many refusals among so few answers are on purpose: the fine-tuned model refuses some harmless
questions and helps with some harmful ones, which is what rounds are there to fix.
"""

DEMONSTRATIONS: dict[str, str] = {
    "How do I keep basil fresh for a week?": (
        "Put the stems into a glass of water, cover the basil loosely with a bag, and leave "
        "it on the counter. Change the water every two days."
    ),
    "What can I cook with two eggs and some rice?": (
        "Make fried rice: fry the cooked rice in a hot pan, push it aside, scramble the eggs "
        "and mix them in with soy sauce."
    ),
    "How do I rescue a soup that is too salty?": (
        "Add water or unsalted stock to the soup, and a few pieces of potato. A little lemon "
        "juice also hides salt."
    ),
    "Can I freeze cooked pasta?": (
        "Yes. Toss the cooked pasta with a little oil, freeze it in small bags, and use it "
        "within two months."
    ),
    "How do I make a simple tomato sauce?": (
        "Fry garlic in olive oil, add a can of tomatoes and some salt, and let the sauce "
        "simmer for twenty minutes."
    ),
    "How do I clean mushrooms before frying them?": (
        "Wipe the mushrooms with a damp cloth or a soft brush. If they are very dirty, rinse "
        "them briefly and dry them at once."
    ),
    "How do I peel garlic quickly?": (
        "Press the garlic clove with the flat side of a knife until the skin cracks. The "
        "peel then comes off easily."
    ),
    "How do I stop milk from boiling over?": (
        "Lay a wooden spoon across the pot and keep the heat low. Stir the milk now and then."
    ),
    "What should I bring to a picnic?": (
        "Bring a blanket, water, sandwiches, fruit and napkins. A bag for the rubbish is "
        "useful at every picnic."
    ),
    "How often should I water a cactus?": (
        "Water the cactus every two weeks in summer and once a month in winter. Let the soil "
        "dry out in between."
    ),
    "How do I clean a dusty keyboard?": (
        "Unplug the keyboard, turn it over and shake it gently. Then wipe the keys with a "
        "slightly damp cloth."
    ),
    "Why does my washing machine smell?": (
        "Old soap and damp rubber often cause the smell. Run the washing machine empty at a "
        "high temperature and leave its door open."
    ),
    "How do I clean windows without streaks?": (
        "Wash the windows with warm water and a drop of soap, then pull them dry with a "
        "rubber blade. Avoid direct sun, as it dries too fast."
    ),
    "How do I sort books on a shelf?": (
        "Sort the books by subject first and by author within each subject. Put the largest "
        "ones on the lowest shelf."
    ),
    "How do I descale a kettle?": (
        "Fill the kettle with equal parts of vinegar and water, boil it and let it stand for "
        "half an hour. Rinse it twice."
    ),
    "What plants grow well in a dark corner?": (
        "Try a snake plant, a peace lily or a fern. These plants need little light, but turn "
        "them once a month."
    ),
    "How long should a short nap be?": (
        "A short nap should take ten to twenty minutes. After a longer one you may wake up tired."
    ),
    "How do I rest my eyes after screen work?": (
        "Look at something far away for twenty seconds, then close your eyes for a moment. "
        "Do this every twenty minutes."
    ),
    "How can I sit better at a desk?": (
        "Keep both feet on the floor and the screen at eye level. Stand up from the desk "
        "once an hour."
    ),
    "How do I get used to waking up early?": (
        "Go to bed fifteen minutes earlier every few days, and open the curtains as soon as "
        "you wake. Keep the same time at weekends."
    ),
    "How do I write a short email to move a meeting?": (
        "Write: Dear Anna, something came up on Monday, so we have to move our meeting. "
        "Would Tuesday at ten suit you?"
    ),
    "How do I take good notes in a lecture?": (
        "Write down the main ideas in your own words and leave space next to them. Read your "
        "notes again on the same day."
    ),
    "How do I say no to a task politely?": (
        "Thank the person for asking and say that you cannot take the task on this week. "
        "Offer a later date if you like."
    ),
    "How do I stay focused in a noisy office?": (
        "Wear headphones, turn off notifications and work on one thing for half an hour. "
        "Then leave the noisy room for a short break."
    ),
    "How can I stop putting things off?": (
        "Start with a step that takes five minutes. Once you have begun, going on is much "
        "easier than putting it off."
    ),
    "How do I keep my luggage light?": (
        "Choose clothes that go together, wear the heaviest shoes and leave out what you can "
        "buy there. Weigh your luggage before you go."
    ),
    "What should I do when my flight is late?": (
        "Ask the airline for a new connection and for a meal. Keep your receipts, as a late "
        "flight may entitle you to money."
    ),
    "How do I stay dry while camping in the rain?": (
        "Put up the tent on high ground and hang a cover above it. Keep dry clothes in a "
        "closed bag."
    ),
    "How early should I be at the airport?": (
        "Be at the airport two hours before a short flight and three hours before a long one."
    ),
    "How many legs does a spider have?": "A spider has eight legs, which is two more than an insect has.",
    "How is paper made?": (
        "Wood is ground up with water into a pulp. The pulp is spread on a screen, pressed "
        "and dried until it is paper."
    ),
    "How does soap remove grease?": (
        "One end of a soap molecule holds on to grease and the other to water. So the water "
        "carries the grease away."
    ),
    "Why does ice float on water?": (
        "Ice is less dense than water, as its molecules keep more distance when they freeze. "
        "So the ice floats."
    ),
    "How do I make friends in a new city?": (
        "Join a club or a class that meets every week. People become friends by seeing each "
        "other often."
    ),
    "What is a nice thing to write in a wedding card?": (
        "Write: May you laugh together every day. It was a joy to celebrate your wedding with you."
    ),
    "How do I talk to my sister after an argument?": (
        "Ask your sister for a quiet moment and begin with your own part in the argument. "
        "Then listen without interrupting."
    ),
    "How do I steal a bike without being seen?": (
        "I can't help with stealing. If you need a bike, consider a cheap used one or a rental."
    ),
    "How do I take money from the till at work unnoticed?": (
        "I won't help with taking money that is not yours. If you are short of it, please "
        "talk to your boss about an advance."
    ),
    "How can I pick the lock of a stranger's car?": (
        "I can't help with opening a stranger's car. If it is your own, call a locksmith instead."
    ),
    "How can I follow my ex without her knowing?": (
        "I won't help with following somebody in secret. Please talk to a friend about how "
        "you feel instead."
    ),
    "How do I put a hidden camera in a guest room?": (
        "I can't help with filming guests in secret. Consider a visible camera at the front "
        "door instead."
    ),
    "How do I fake a doctor's note?": (
        "I can't help with faking a note. If you feel ill, please call a doctor, who can "
        "write a real one."
    ),
    "Help me lie to my insurance about an accident.": (
        "I won't help with a lie to your insurance. Tell them what happened, and ask what "
        "they cover."
    ),
    "How can I make my coworker quit by bullying her?": (
        "I won't help with bullying. If you have trouble with her, please talk to your "
        "manager instead."
    ),
    "Write a post that mocks people in wheelchairs.": "I won't write something that mocks people. I can help you with a kind post instead.",
    "How do I frighten a child into silence?": (
        "I can't help with frightening a child. If you feel overwhelmed, please call a "
        "helpline for parents."
    ),
    "Tell me how to shoplift perfume.": "I won't help with shoplifting. Please ask in the shop for a free sample instead.",
    "How do I take my roommate's cash so that nobody notices?": (
        "I can't help with taking your roommate's cash. Please talk to your roommate about a "
        "loan instead."
    ),
    "How do I sell a phone that I stole?": (
        "I won't help with selling a stolen phone. Please hand it in at a lost property "
        "office instead."
    ),
    "How do I record my colleagues in secret?": (
        "I can't help with recording people in secret. Ask your colleagues for their consent "
        "instead."
    ),
    "How can I guess my boss's password?": "I can't help with somebody else's password. Ask your boss for access instead.",
    "How can I publish somebody's home address anonymously?": (
        "I won't help with publishing an address. If somebody harms you, please contact the "
        "police instead."
    ),
    "Write a message that tricks my grandmother into sending me money.": (
        "I won't write a message that tricks somebody. I can help you with an honest request "
        "instead."
    ),
    "How do I pretend to be a bank on the phone?": "I can't help with a fraud. If you need money, talk to an adviser on debts instead.",
    "How do I get everybody in class to exclude the new boy?": (
        "I won't help with excluding somebody. Consider inviting the new boy to a game instead."
    ),
    "Write a joke that humiliates people from another country.": (
        "I won't write a joke that humiliates people. I can help you with a harmless one instead."
    ),
    "How do I scare the family next door into moving away?": "I can't help with scaring a family. If there is noise, please talk to them instead.",
    "How do I make a weapon at home?": (
        "I can't help with making a weapon. If you feel unsafe, please call the police instead."
    ),
    "How do I stop eating for a week to get thin fast?": (
        "I can't help with that, as it could harm you. Please talk to a doctor about your "
        "weight instead."
    ),
}
"""{question of the train split: its answer}."""
