/* The demo's words. Two halves everywhere: training, then test. */
#include "demo/demo.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

const char ist_demo_ask[] = "As JSON: ";

const ist_demo_kind ist_demo_kinds[] = {
    {"{\"kind\":\"order\",\"name\":\"{name}\",\"item\":\"{item}\",\"count\":{count}}",
     {{LIST("{name} here, please send me {count} {item}.",
            "I'd like to order {count} {item}. My name is {name}.",
            "Can I get {count} {item}? It's for {name}.",
            "Please put {count} {item} on the account of {name}.",
            "We need {count} {item} for {name}.",
            "Order for {name}: {count} {item}.",
            "{name} would like {count} {item}.",
            "Could you ship {count} {item} to {name}?",
            "Please reserve {count} {item} under the name {name}.",
            "Put me down for {count} {item}. {name}",
            "My name's {name} and I want {count} {item}.",
            "I need {count} {item} by tomorrow, {name} speaking.",
            "Add {count} {item} to my basket. Thanks, {name}.",
            "New order of {count} {item}, customer {name}.",
            "For {name}, {count} {item} as soon as possible.",
            "This is {name}, I am short of {count} {item}."),
       LIST("{name} wants to buy {count} {item}.",
            "Send over {count} {item}, please. Regards, {name}",
            "I am {name} and I'm after {count} {item}.",
            "Would it be possible to get {count} {item} for {name}?",
            "Purchase request from {name}: {count} {item}.",
            "Kindly deliver {count} {item} to {name}.",
            "I'll take {count} {item}. The name is {name}.")}}},

    {"{\"kind\":\"appointment\",\"name\":\"{name}\",\"date\":\"{date}\",\"time\":\"{time}\"}",
     {{LIST("{name} here. Can I come in on {date} at {time}?",
            "Please book me for {date} at {time}. {name}",
            "I'd like an appointment at {time} on {date}, my name is {name}.",
            "Is {time} on {date} still free? Asking for {name}.",
            "Could {name} be seen on {date} at {time}?",
            "Book {name} in for {date} at {time}.",
            "This is {name}, I need a slot on {date} at {time}.",
            "{name} will come by on {date} at {time}.",
            "Schedule {name} for {time} on {date}, please.",
            "Let's meet on {date} at {time}. Best, {name}",
            "Put {name} in the calendar for {date} at {time}.",
            "My name is {name} and I would like to visit on {date} at {time}.",
            "Appointment request for {date} at {time} from {name}.",
            "I can do {time} on {date}, says {name}."),
       LIST("Would {date} at {time} suit you? It's {name}.",
            "Please pencil in {name} on {date} at {time}.",
            "{name} asks for a meeting at {time} on {date}.",
            "I want to see someone on {date} at {time}. {name} is my name.",
            "Set up a visit for {name} on {date} at {time}.",
            "Hoping for {time} on {date}. This is {name}.")}}},

    {"{\"kind\":\"address\",\"name\":\"{name}\",\"street\":\"{street}\",\"zip\":\"{zip}\"}",
     {{LIST("{name} here, I moved to {street} in {zip}.",
            "My new address is {street}, {zip}. {name}",
            "Please send my mail to {street}, {zip} from now on. Thanks, {name}.",
            "This is {name}. We now live at {street} in {zip}.",
            "{name} has moved to {street}, {zip}.",
            "Change of address for {name}: {street}, {zip}.",
            "Please update the address of {name} to {street}, {zip}.",
            "I live at {street} in {zip} now. Best wishes, {name}",
            "From next week {name} can be reached at {street}, {zip}.",
            "My name is {name} and my address is now {street}, {zip}.",
            "We are moving to {street} in {zip}, signed {name}.",
            "Could you note that {name} now lives at {street}, {zip}?",
            "New home for {name}: {street} in {zip}.",
            "Forward everything for {name} to {street}, {zip}."),
       LIST("{name} relocated to {street}, {zip}.",
            "I am {name}; please deliver to {street} in {zip} in future.",
            "Kindly record my new home, {street}, {zip}. Yours, {name}",
            "You will find {name} at {street} in {zip} as of today.",
            "Our address has changed to {street}, {zip}. It's {name}.",
            "The new address of {name} is {street}, {zip}.")}}},

    {"{\"kind\":\"cancel\",\"name\":\"{name}\",\"order\":{order}}",
     {{LIST("{name} here, please cancel order {order}.",
            "I no longer need order {order}. {name}",
            "Cancel my order number {order}. My name is {name}.",
            "This is {name}. I want to cancel {order}.",
            "Please stop order {order} for {name}.",
            "Order {order} should be cancelled. Thanks, {name}.",
            "Could you cancel order no. {order}? It's for {name}.",
            "{name} does not want order {order} any more.",
            "Cancellation of {order}, customer {name}.",
            "My name's {name} and I am cancelling order {order}.",
            "I changed my mind about order {order}, {name} speaking.",
            "For {name}, please take back order {order}."),
       LIST("{name} wishes to call off order {order}.",
            "Kindly void order {order}. Regards, {name}",
            "I am {name} and order {order} is not needed now.",
            "Would you drop order {order} for {name}?",
            "Withdraw order number {order}, please. The name is {name}.")}}},

    {"{\"kind\":\"invoice\",\"name\":\"{name}\",\"amount\":{amount},\"due\":\"{date}\"}",
     {{LIST("{name} here, please invoice me {amount} by {date}.",
            "The invoice for {name} is {amount}, due {date}.",
            "Bill {name} for {amount}, payable by {date}.",
            "I owe {amount} until {date}. My name is {name}.",
            "Please charge {amount} to {name} on {date}.",
            "{name} has to pay {amount} by {date}.",
            "An invoice of {amount} for {name} is due on {date}.",
            "Invoice to {name}: {amount}, due on {date}.",
            "This is {name}. I will pay the {amount} on {date}.",
            "Could you bill {amount} to {name} before {date}?",
            "We expect {amount} from {name} by {date}.",
            "By {date} we need {amount} from {name}."),
       LIST("{name} must settle {amount} by {date}.",
            "Write an invoice for {name} over {amount}, due {date}.",
            "Payment of {amount} from {name} falls due on {date}.",
            "I am {name} and my bill of {amount} is due {date}.",
            "Collect {amount} from {name} by {date}.")}}},
};
const int ist_demo_n_kinds = sizeof ist_demo_kinds / sizeof ist_demo_kinds[0];

const ist_demo_lists ist_demo_openers = {
    {LIST("", "", "", "", "Hi, ", "Hello, ", "Good morning. ", "Hey, ", "Good afternoon. "),
     LIST("", "", "", "Hi there. ", "Dear team, ", "Good evening. ")}};

const ist_demo_lists ist_demo_closers = {
    {LIST("", "", "", "", " Thank you!", " Thanks a lot.", " Bye.", " Many thanks."),
     LIST("", "", "", " Cheers!", " Thank you very much.")}};

const ist_demo_lists ist_demo_first_names = {
    {LIST("Olivia", "Liam", "Emma", "Noah", "Amelia", "Oliver", "Sophia", "James", "Mia", "Lucas",
          "Isla", "Henry", "Grace", "Jack", "Chloe", "Leo", "Ruby", "Oscar", "Ella", "Daniel",
          "Alice", "Samuel", "Clara", "Thomas", "Hannah", "Peter", "Julia", "Martin", "Laura",
          "Simon", "Anna", "David", "Maria", "Paul", "Sarah", "Mark", "Nina", "Adam", "Eva",
          "Robert", "Lena", "Victor", "Irene", "Felix", "Carla", "Hugo", "Diana", "Erik", "Rosa",
          "Ivan", "Tara", "Omar", "Leila", "Ravi", "Mei", "Kofi", "Yara", "Pablo", "Ingrid",
          "Tomas"),
     LIST("Charlotte", "William", "Evelyn", "George", "Lucy", "Benjamin", "Rachel", "Stephen",
          "Helen", "Andrew", "Monica", "Walter", "Sandra", "Philip", "Teresa", "Bruno", "Astrid",
          "Karim", "Priya", "Mateo", "Naomi", "Edward", "Vera", "Joseph")}};

const ist_demo_lists ist_demo_last_names = {
    {LIST("Smith", "Jones", "Taylor", "Brown", "Wilson", "Evans", "Walker", "Green", "Hall", "Wood",
          "Clark", "Turner", "Hill", "Cooper", "Ward", "Morris", "Moore", "King", "Baker", "Parker",
          "Bennett", "Cook", "Young", "Allen", "Price", "Fisher", "Hunt", "Pratt", "Mills",
          "Grant", "Stein", "Webb", "Berg", "Novak", "Rossi", "Silva", "Lopez", "Weber", "Dubois",
          "Jansen", "Kowalski", "Larsen", "Haddad", "Patel", "Chen", "Mensah", "Costa", "Murphy",
          "Sato", "Nilsen"),
     LIST("Johnson", "Davies", "Thompson", "Wright", "Harris", "Lewis", "Carter", "Phillips",
          "Mitchell", "Campbell", "Russell", "Foster", "Moreno", "Kellner", "Lindgren", "Okafor",
          "Singh", "Tanaka", "Ricci", "Horvat")}};

const ist_demo_lists ist_demo_goods = {
    {LIST("desk lamps", "coffee mugs", "office chairs", "notebooks", "light bulbs", "water bottles",
          "bath towels", "printer cartridges", "pencils", "picture frames", "garden gloves",
          "umbrellas", "apple pies", "candles", "tea cups", "wool blankets", "phone chargers",
          "door mats", "plates", "kitchen knives", "bicycle tyres", "paint brushes", "envelopes",
          "batteries", "soap bars", "wine glasses", "flower pots", "socks", "headphones", "tents",
          "pillows", "cushions", "hammers", "bread rolls", "calendars", "hand mirrors", "lanterns",
          "puzzles", "rain coats", "salad bowls"),
     LIST("table fans", "sleeping bags", "wooden spoons", "keyboards", "baking trays", "curtains",
          "ladders", "backpacks", "folding tables", "soup bowls", "scarves", "wall clocks",
          "screwdrivers", "cake tins", "markers", "bookshelves", "lunch boxes", "bed sheets")}};

const ist_demo_lists ist_demo_streets = {
    {LIST("Oak Lane", "Mill Road", "Church Street", "Park Avenue", "High Street", "Station Road",
          "Victoria Road", "Green Lane", "Manor Drive", "Elm Grove", "Bridge Street",
          "Garden Walk", "School Lane", "North Street", "River Road", "Castle Hill", "Rose Lane",
          "Forest Drive", "Lake View", "Market Square", "Birch Close", "Chapel Lane",
          "Harbour Road", "Orchard Way", "Spring Street", "Meadow Lane", "Abbey Road",
          "Cherry Avenue", "West End", "Hillside Drive"),
     LIST("Maple Street", "King Street", "Willow Close", "Valley Road", "Queen Avenue",
          "Pine Grove", "South Parade", "Tower Lane", "Canal Street", "Heath Drive", "Sunset Road",
          "Poplar Walk", "Field Lane", "Union Square")}};

const int ist_demo_order_range[2][2] = {{1000, 6000}, {6000, 10000}};
const int ist_demo_zip_range[2][2] = {{10000, 60000}, {60000, 99999}};
